package conformance

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func agentListChecks() []Check {
	return []Check{
		{"agent/list by selectors", listBySelectors},
		{"agent/list by fields", listByFields},
		{"agent/list pages", listAgentPages},
		{"agent/list refused", listAgentsRefused},
		{"agent/list by a malformed time", listByMalformedTime},
	}
}

// listed are the agents that match, by ListAgents and as counted by CountAgents.
func (c *C) listed(f *agentv1.ListAgentsRequest_Filter) []*types.Agent {
	c.Helper()
	list, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{Filter: f})
	c.must(err)
	count, err := c.agents.CountAgents(c.ctx, &agentv1.CountAgentsRequest{Filter: &agentv1.CountAgentsRequest_Filter{
		ByAttestationType: f.GetByAttestationType(), BySelectorMatch: f.GetBySelectorMatch(), ByBanned: f.GetByBanned(),
		ByCanReattest: f.GetByCanReattest(), ByExpiresBefore: f.GetByExpiresBefore(),
	}})
	c.must(err)
	c.equal("count of "+f.String(), int(count.Count), len(list.Agents))
	return list.Agents
}

// listBySelectors tries every match on agents whose selectors are their CA's and their serial number's.
func listBySelectors(c *C) {
	n, other := c.newNode(), c.newNode()
	a, err := n.prove(c)
	c.must(err)
	b, err := other.prove(c)
	c.must(err)
	ca := &types.Selector{Type: "x509pop", Value: "ca:fingerprint:" + sha1Hex(c.pop.Cert.Raw)}
	serial := func(n node) *types.Selector {
		return &types.Selector{Type: "x509pop", Value: "serialnumber:" + serialHex(n.cert)}
	}
	extra := &types.Selector{Type: "x509pop", Value: "extra"}
	for _, row := range []struct {
		match     types.SelectorMatch_MatchBehavior
		selectors []*types.Selector
		a, b      bool
	}{
		{types.SelectorMatch_MATCH_EXACT, []*types.Selector{serial(n), ca}, true, false},
		{types.SelectorMatch_MATCH_EXACT, []*types.Selector{ca}, false, false},
		{types.SelectorMatch_MATCH_SUBSET, []*types.Selector{ca, serial(n), extra}, true, false},
		{types.SelectorMatch_MATCH_SUBSET, []*types.Selector{ca}, false, false},
		{types.SelectorMatch_MATCH_SUPERSET, []*types.Selector{ca}, true, true},
		{types.SelectorMatch_MATCH_SUPERSET, []*types.Selector{ca, extra}, false, false},
		{types.SelectorMatch_MATCH_ANY, []*types.Selector{serial(n), extra}, true, false},
		{types.SelectorMatch_MATCH_ANY, []*types.Selector{serial(n), serial(other)}, true, true},
		{types.SelectorMatch_MATCH_ANY, []*types.Selector{extra}, false, false},
	} {
		got := c.listed(&agentv1.ListAgentsRequest_Filter{BySelectorMatch: &types.SelectorMatch{Match: row.match, Selectors: row.selectors}})
		has := func(path string) bool {
			return slices.ContainsFunc(got, func(x *types.Agent) bool { return x.Id.Path == path })
		}
		c.equal(fmt.Sprint(row.match, row.selectors), []bool{has(a.ID.Path()), has(b.ID.Path())}, []bool{row.a, row.b})
	}
}

func listByFields(c *C) {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	banned := c.join()
	_, err = c.agents.BanAgent(c.ctx, &agentv1.BanAgentRequest{Id: banned.id})
	c.must(err)
	const layout = "2006-01-02 15:04:05 -0700 -07"
	later, soon := time.Now().Add(48*time.Hour).Format(layout), time.Now().Format(layout)
	for _, row := range []struct {
		filter      *agentv1.ListAgentsRequest_Filter
		pop, banned bool
	}{
		{nil, true, true},
		{&agentv1.ListAgentsRequest_Filter{}, true, true},
		{&agentv1.ListAgentsRequest_Filter{ByAttestationType: "x509pop"}, true, false},
		{&agentv1.ListAgentsRequest_Filter{ByAttestationType: "join_token"}, false, true},
		{&agentv1.ListAgentsRequest_Filter{ByAttestationType: "unheard-of"}, false, false},
		{&agentv1.ListAgentsRequest_Filter{ByBanned: wrapperspb.Bool(true)}, false, true},
		{&agentv1.ListAgentsRequest_Filter{ByBanned: wrapperspb.Bool(false)}, true, false},
		{&agentv1.ListAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(true)}, true, false},
		{&agentv1.ListAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(false)}, false, true},
		{&agentv1.ListAgentsRequest_Filter{ByExpiresBefore: later}, true, true},
		{&agentv1.ListAgentsRequest_Filter{ByExpiresBefore: soon}, false, false},
		{&agentv1.ListAgentsRequest_Filter{ByAttestationType: "join_token", ByBanned: wrapperspb.Bool(false)}, false, false},
	} {
		got := c.listed(row.filter)
		has := func(path string) bool {
			return slices.ContainsFunc(got, func(x *types.Agent) bool { return x.Id.Path == path })
		}
		c.equal(row.filter.String(), []bool{has(svid.ID.Path()), has(banned.id.Path)}, []bool{row.pop, row.banned})
	}
}

// listAgentPages turns the pages until there is no more: the last is empty, and has no token.
func listAgentPages(c *C) {
	for range 3 {
		c.join()
	}
	all := c.listed(nil)
	var paged []*types.Agent
	token, pages := "", 0
	for {
		page, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{PageSize: 2, PageToken: token, OutputMask: &types.AgentMask{}})
		c.must(err)
		if pages++; len(page.Agents) > 2 {
			c.Errorf("a page of %d", len(page.Agents))
		}
		if paged = append(paged, page.Agents...); page.NextPageToken == "" {
			c.equal("agents on the last page", len(page.Agents), 0)
			break
		}
		token = page.NextPageToken
	}
	c.equal("agents on all pages", len(paged), len(all))
	c.equal("pages", pages, (len(all)+1)/2+1)
	seen := map[string]bool{}
	for _, a := range paged {
		if seen[a.Id.Path] || a.AttestationType != "" {
			c.Errorf("twice, or past the mask: %v", a)
		}
		seen[a.Id.Path] = true
	}
	whole, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{PageSize: -1, PageToken: "ignored"})
	c.must(err)
	c.equal("agents without pages", len(whole.Agents), len(all))
	c.equal("token without pages", whole.NextPageToken, "")
}

func listAgentsRefused(c *C) {
	_, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{PageSize: 1, PageToken: "not a token"})
	c.badToken("list agents: page token", err, "failed to list agents: …")
	for text, s := range badSelectors() {
		_, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{Filter: &agentv1.ListAgentsRequest_Filter{
			BySelectorMatch: &types.SelectorMatch{Selectors: []*types.Selector{s}},
		}})
		c.refused(err, codes.InvalidArgument, c.words("failed to parse selectors: "+text, "failed to parse selectors: …"))
	}
}

func listByMalformedTime(c *C) {
	list, err := c.agents.ListAgents(c.ctx, &agentv1.ListAgentsRequest{
		Filter: &agentv1.ListAgentsRequest_Filter{ByExpiresBefore: "tomorrow"},
	})
	if c.Differs("list agents: malformed time") {
		c.refused(err, codes.InvalidArgument, "…")
		return
	}
	c.must(err)
	if len(list.Agents) == 0 {
		c.Error("no agents, want the filter ignored")
	}
}

// badSelectors are selectors that no call takes, by what is wrong with them.
func badSelectors() map[string]*types.Selector {
	return map[string]*types.Selector{
		"missing selector type":      {Value: "v"},
		"selector type contains ':'": {Type: "a:b", Value: "v"},
		"missing selector value":     {Type: "t"},
	}
}
