package conformance

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func entryListChecks() []Check {
	return []Check{
		{"entry/list pages", listEntryPages},
		{"entry/list while entries go", listWhileDeleting},
		{"entry/list refused", listEntriesRefused},
		{"entry/list page token refused", listEntriesBadToken},
	}
}

type entryFilter = entryv1.ListEntriesRequest_Filter

// matching are the entries that match, by ListEntries, and as counted by CountEntries.
func (c *C) matching(f *entryFilter) []*types.Entry {
	c.Helper()
	list, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{Filter: f})
	c.must(err)
	count, err := c.entries.CountEntries(c.ctx, &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{
		BySpiffeId: f.GetBySpiffeId(), ByParentId: f.GetByParentId(), BySelectors: f.GetBySelectors(),
		ByFederatesWith: f.GetByFederatesWith(), ByHint: f.GetByHint(), ByDownstream: f.GetByDownstream(),
	}})
	c.must(err)
	c.equal("count of "+f.String(), int(count.Count), len(list.Entries))
	return list.Entries
}

// listEntryPages turns the pages until there is no more: the last is empty, and has no token.
func listEntryPages(c *C) {
	parent := c.pid("/" + c.unique("paged"))
	var want []string
	for i := range 5 {
		e := c.child(parent)
		e.Selectors = []*types.Selector{{Type: "page", Value: "all"}, {Type: "page", Value: strconv.Itoa(i)}}
		want = append(want, c.entry(e).Id)
	}
	for _, filter := range []*entryFilter{
		{ByParentId: parent},
		{ByParentId: parent, BySelectors: &types.SelectorMatch{
			Match: types.SelectorMatch_MATCH_SUPERSET, Selectors: []*types.Selector{{Type: "page", Value: "all"}},
		}},
	} {
		var got []string
		token, pages := "", 0
		for {
			page, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{
				Filter: filter, PageSize: 2, PageToken: token, OutputMask: &types.EntryMask{},
			})
			c.must(err)
			pages++
			for _, e := range page.Entries {
				got = append(got, e.Id)
			}
			if token = page.NextPageToken; token == "" {
				c.equal("entries on the last page", len(page.Entries), 0)
				break
			}
		}
		c.equal("pages", pages, 4)
		slices.Sort(got)
		slices.Sort(want)
		c.equal("entries on all pages", got, want)
	}
	none, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{Filter: &entryFilter{ByParentId: c.pid("/nobody/at/all")}, PageSize: 2})
	c.must(err)
	c.equal("entries of nobody", none, &entryv1.ListEntriesResponse{})
}

// listWhileDeleting takes the entries of each page away before it turns to the next, as a clean-up does.
func listWhileDeleting(c *C) {
	parent := c.pid("/" + c.unique("going"))
	for range 5 {
		c.entry(c.child(parent))
	}
	token, seen := "", 0
	for range 9 {
		page, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{
			Filter: &entryFilter{ByParentId: parent}, PageSize: 2, PageToken: token,
		})
		c.must(err)
		var ids []string
		for _, e := range page.Entries {
			ids = append(ids, e.Id)
		}
		seen += len(ids)
		_, err = c.entries.BatchDeleteEntry(c.ctx, &entryv1.BatchDeleteEntryRequest{Ids: ids})
		c.must(err)
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	c.equal("entries on all pages", seen, 5)
}

// listEntriesRefused is filters that are refused, by ListEntries and by CountEntries.
func listEntriesRefused(c *C) {
	td := c.td.Name()
	none := &types.SelectorMatch{}
	rows := map[string]*entryFilter{
		"malformed selectors filter: empty selector set":          {BySelectors: none},
		"malformed federates with filter: empty trust domain set": {ByFederatesWith: &types.FederatesWithMatch{}},
		"malformed federates with filter: …":                      {ByFederatesWith: &types.FederatesWithMatch{TrustDomains: []string{"no domain"}}},
		"malformed SPIFFE ID filter: trust domain is missing":     {BySpiffeId: &types.SPIFFEID{}},
		"malformed parent ID filter: trust domain is missing":     {ByParentId: &types.SPIFFEID{}},
		`malformed SPIFFE ID filter: "spiffe://other.test/a" is not a member of trust domain "` + td + `"`: {
			BySpiffeId: &types.SPIFFEID{TrustDomain: "other.test", Path: "/a"},
		},
		`malformed SPIFFE ID filter: "spiffe://` + td + `/spire/a" is not a workload in trust domain "` + td + `"; path is in the reserved namespace`: {
			BySpiffeId: c.pid("/spire/a"),
		},
		`malformed parent ID filter: "spiffe://` + td + `" is not a member of trust domain "` + td + `"; path is empty`: {ByParentId: c.pid("")},
	}
	for text, s := range badSelectors() {
		rows["malformed selectors filter: "+text] = &entryFilter{BySelectors: &types.SelectorMatch{Selectors: []*types.Selector{s}}}
	}
	for text, f := range rows {
		if before, _, ok := strings.Cut(text, ": "); ok && f.BySelectors != nil {
			text = c.words(text, before+": …")
		}
		_, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{Filter: f})
		c.refused(err, codes.InvalidArgument, text)
		_, err = c.entries.CountEntries(c.ctx, &entryv1.CountEntriesRequest{Filter: &entryv1.CountEntriesRequest_Filter{
			BySpiffeId: f.BySpiffeId, ByParentId: f.ByParentId, BySelectors: f.BySelectors, ByFederatesWith: f.ByFederatesWith,
		}})
		c.refused(err, codes.InvalidArgument, text)
	}
}

func listEntriesBadToken(c *C) {
	for _, token := range []string{"not a token", "-", "1x", strings.Repeat("9", 40)} {
		_, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{PageSize: 1, PageToken: token})
		if c.Differs("list entries: page token") {
			c.refused(err, codes.InvalidArgument, "…")
		} else {
			c.refused(err, codes.Internal, "failed to list entries: …")
		}
	}
}

func entryFilterChecks() []Check {
	return []Check{
		{"entry/filter by selectors", filterSelectors},
		{"entry/filter by federated domains", filterFederated},
		{"entry/filter by fields", filterFields},
	}
}

// names are the hints of the entries that match: the checks name theirs so.
func (c *C) names(f *entryFilter) string {
	c.Helper()
	var hints []string
	for _, e := range c.matching(f) {
		hints = append(hints, e.Hint)
	}
	slices.Sort(hints)
	return strings.Join(hints, " ")
}

// filterSelectors tries every match on every set.
func filterSelectors(c *C) {
	parent := c.pid("/" + c.unique("filtered"))
	for _, set := range []string{"a", "ab", "abc", "d"} {
		e := c.child(parent)
		e.Hint, e.Selectors = set, selectorSet(set)
		c.entry(e)
	}
	for _, row := range []struct {
		match types.SelectorMatch_MatchBehavior
		set   string
		want  string
	}{
		{types.SelectorMatch_MATCH_EXACT, "a", "a"},
		{types.SelectorMatch_MATCH_EXACT, "ba", "ab"},
		{types.SelectorMatch_MATCH_EXACT, "aab", "ab"},
		{types.SelectorMatch_MATCH_EXACT, "bc", ""},
		{types.SelectorMatch_MATCH_SUBSET, "a", "a"},
		{types.SelectorMatch_MATCH_SUBSET, "ab", "a ab"},
		{types.SelectorMatch_MATCH_SUBSET, "cbad", "a ab abc d"},
		{types.SelectorMatch_MATCH_SUBSET, "b", ""},
		{types.SelectorMatch_MATCH_SUPERSET, "a", "a ab abc"},
		{types.SelectorMatch_MATCH_SUPERSET, "bc", "abc"},
		{types.SelectorMatch_MATCH_SUPERSET, "ad", ""},
		{types.SelectorMatch_MATCH_ANY, "b", "ab abc"},
		{types.SelectorMatch_MATCH_ANY, "cd", "abc d"},
		{types.SelectorMatch_MATCH_ANY, "e", ""},
	} {
		got := c.names(&entryFilter{ByParentId: parent, BySelectors: &types.SelectorMatch{Match: row.match, Selectors: selectorSet(row.set)}})
		c.equal(row.match.String()+" "+row.set, got, row.want)
	}
}

// selectorSet is a selector for each letter.
func selectorSet(letters string) []*types.Selector {
	set := []*types.Selector{}
	for _, letter := range letters {
		set = append(set, &types.Selector{Type: "set", Value: string(letter)})
	}
	return set
}

func filterFederated(c *C) {
	parent, domains := c.pid("/"+c.unique("federating")), map[rune]string{}
	for _, letter := range "abcd" {
		domains[letter] = c.unique("domain") + ".test"
		c.federate(domains[letter])
	}
	set := func(letters string) []string {
		var all []string
		for _, letter := range letters {
			all = append(all, domains[letter])
		}
		return all
	}
	for _, letters := range []string{"", "a", "ab", "abc"} {
		e := c.child(parent)
		e.Hint, e.FederatesWith = "="+letters, set(letters)
		c.entry(e)
	}
	for _, row := range []struct {
		match types.FederatesWithMatch_MatchBehavior
		set   string
		want  string
	}{
		{types.FederatesWithMatch_MATCH_EXACT, "ba", "=ab"},
		{types.FederatesWithMatch_MATCH_EXACT, "d", ""},
		{types.FederatesWithMatch_MATCH_SUBSET, "ab", "=a =ab"},
		{types.FederatesWithMatch_MATCH_SUBSET, "d", ""},
		{types.FederatesWithMatch_MATCH_SUPERSET, "a", "=a =ab =abc"},
		{types.FederatesWithMatch_MATCH_SUPERSET, "cb", "=abc"},
		{types.FederatesWithMatch_MATCH_ANY, "bd", "=ab =abc"},
		{types.FederatesWithMatch_MATCH_ANY, "d", ""},
	} {
		got := c.names(&entryFilter{ByParentId: parent, ByFederatesWith: &types.FederatesWithMatch{Match: row.match, TrustDomains: set(row.set)}})
		c.equal(row.match.String()+" "+row.set, got, row.want)
	}
}

// filterFields tries the other filters, and all together.
func filterFields(c *C) {
	parent, id := c.pid("/"+c.unique("fielded")), c.pid("/"+c.unique("fielded"))
	for _, hint := range []string{"plain", "down", "id"} {
		e := c.child(parent)
		e.Hint, e.Downstream = hint, hint == "down"
		if hint == "id" {
			e.SpiffeId, e.Selectors = id, selectorSet("a")
		}
		c.entry(e)
	}
	for _, row := range []struct {
		f    *entryFilter
		want string
	}{
		{&entryFilter{}, "down id plain"},
		{&entryFilter{ByHint: wrapperspb.String("down")}, "down"},
		{&entryFilter{ByHint: wrapperspb.String("")}, "down id plain"},
		{&entryFilter{ByDownstream: wrapperspb.Bool(true)}, "down"},
		// SPIRE's command line sends this where it wants all.
		{&entryFilter{ByDownstream: wrapperspb.Bool(false)}, "down id plain"},
		{&entryFilter{BySpiffeId: id}, "id"},
		{&entryFilter{BySpiffeId: id, ByDownstream: wrapperspb.Bool(true)}, ""},
		{&entryFilter{BySpiffeId: id, ByHint: wrapperspb.String("id"), BySelectors: &types.SelectorMatch{Selectors: selectorSet("a")}}, "id"},
	} {
		row.f.ByParentId = parent
		c.equal(row.f.String(), c.names(row.f), row.want)
	}
}
