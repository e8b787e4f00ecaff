package conformance

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

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
