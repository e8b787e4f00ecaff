package serverapi

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

type listFilter = entryv1.ListEntriesRequest_Filter

func selectorMatch(match types.SelectorMatch_MatchBehavior, values ...string) *types.SelectorMatch {
	m := &types.SelectorMatch{Match: match}
	for _, v := range values {
		m.Selectors = append(m.Selectors, &types.Selector{Type: "unix", Value: v})
	}
	return m
}

func TestListAndCountFilters(t *testing.T) {
	r := newEntryRig(t)
	web := webEntry()
	web.Id = "web"
	db := plainEntry("/db")
	db.Id, db.ParentId.Path = "db", "/spire/agent/join_token/b"
	r.create(web, db)
	tdMatch := func(match types.FederatesWithMatch_MatchBehavior, tds ...string) *types.FederatesWithMatch {
		return &types.FederatesWithMatch{Match: match, TrustDomains: tds}
	}
	for name, test := range map[string]struct {
		filter *listFilter
		want   []string
	}{
		"no filter":       {nil, []string{"db", "web"}},
		"empty filter":    {&listFilter{}, []string{"db", "web"}},
		"spiffe id":       {&listFilter{BySpiffeId: web.SpiffeId}, []string{"web"}},
		"parent id":       {&listFilter{ByParentId: db.ParentId}, []string{"db"}},
		"both":            {&listFilter{BySpiffeId: web.SpiffeId, ByParentId: db.ParentId}, nil},
		"hint":            {&listFilter{ByHint: wrapperspb.String("hint")}, []string{"web"}},
		"empty hint":      {&listFilter{ByHint: wrapperspb.String("")}, []string{"db", "web"}},
		"downstream":      {&listFilter{ByDownstream: wrapperspb.Bool(true)}, []string{"web"}},
		"no downstream":   {&listFilter{ByDownstream: wrapperspb.Bool(false)}, []string{"db", "web"}},
		"exact":           {&listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_EXACT, "uid:1")}, []string{"db"}},
		"subset":          {&listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_SUBSET, "uid:1", "gid:2", "gid:3")}, []string{"db", "web"}},
		"superset":        {&listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_SUPERSET, "gid:2")}, []string{"web"}},
		"any":             {&listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_ANY, "gid:2", "gid:3")}, []string{"web"}},
		"federates exact": {&listFilter{ByFederatesWith: tdMatch(types.FederatesWithMatch_MATCH_EXACT, "unknown.test")}, []string{"web"}},
		// With none it is no subset of anything.
		"federates subset":   {&listFilter{ByFederatesWith: tdMatch(types.FederatesWithMatch_MATCH_SUBSET, "unknown.test", "more.test")}, []string{"web"}},
		"federates superset": {&listFilter{ByFederatesWith: tdMatch(types.FederatesWithMatch_MATCH_SUPERSET, "unknown.test", "more.test")}, nil},
		"federates any":      {&listFilter{ByFederatesWith: tdMatch(types.FederatesWithMatch_MATCH_ANY, "unknown.test", "more.test")}, []string{"web"}},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := r.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: test.filter})
			must(t, err)
			if got := idsOf(resp.GetEntries()); !slices.Equal(got, test.want) || resp.GetNextPageToken() != "" {
				t.Errorf("got %v, token %q; want %v", got, resp.GetNextPageToken(), test.want)
			}
			count, err := r.CountEntries(t.Context(), &entryv1.CountEntriesRequest{Filter: countFilter(test.filter)})
			must(t, err)
			if int(count.GetCount()) != len(test.want) {
				t.Errorf("count is %d, want %d", count.GetCount(), len(test.want))
			}
		})
	}
}

func countFilter(f *listFilter) *entryv1.CountEntriesRequest_Filter {
	if f == nil {
		return nil
	}
	return &entryv1.CountEntriesRequest_Filter{
		BySpiffeId: f.BySpiffeId, ByParentId: f.ByParentId, BySelectors: f.BySelectors,
		ByFederatesWith: f.ByFederatesWith, ByHint: f.ByHint, ByDownstream: f.ByDownstream,
	}
}

func idsOf(entries []*types.Entry) (ids []string) {
	for _, e := range entries {
		ids = append(ids, e.GetId())
	}
	return ids
}

func TestMalformedFilters(t *testing.T) {
	r := newEntryRig(t)
	for text, f := range map[string]*listFilter{
		`malformed selectors filter: empty selector set`:                                                                                                  {BySelectors: &types.SelectorMatch{}},
		`malformed selectors filter: unknown match behavior 9`:                                                                                            {BySelectors: selectorMatch(9, "uid:1")},
		`malformed federates with filter: empty trust domain set`:                                                                                         {ByFederatesWith: &types.FederatesWithMatch{}},
		`malformed parent ID filter: "spiffe://other.test/x" is not a member of trust domain "lanyard.test"`:                                              {ByParentId: &types.SPIFFEID{TrustDomain: "other.test", Path: "/x"}},
		`malformed parent ID filter: "spiffe://lanyard.test" is not a member of trust domain "lanyard.test"; path is empty`:                               {ByParentId: &types.SPIFFEID{TrustDomain: "lanyard.test"}},
		`malformed SPIFFE ID filter: "spiffe://lanyard.test/spire/x" is not a workload in trust domain "lanyard.test"; path is in the reserved namespace`: {BySpiffeId: &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/spire/x"}},
	} {
		_, err := r.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: f})
		wantStatus(t, err, codes.InvalidArgument, text)
		_, err = r.CountEntries(t.Context(), &entryv1.CountEntriesRequest{Filter: countFilter(f)})
		wantStatus(t, err, codes.InvalidArgument, text)
	}
	_, err := r.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: &listFilter{BySelectors: &types.SelectorMatch{Selectors: []*types.Selector{{Type: "a:b", Value: "c"}}}}})
	if err == nil || !strings.Contains(err.Error(), "malformed selectors filter: ") {
		t.Errorf("got %v", err)
	}
}

// pages lists all pages and returns the IDs of each.
func (r entryRig) pages(req *entryv1.ListEntriesRequest, between func(page int)) [][]string {
	r.t.Helper()
	var pages [][]string
	for {
		resp, err := r.ListEntries(r.t.Context(), req)
		must(r.t, err)
		if size := proto.Size(resp); size >= maxMessage {
			r.t.Errorf("an answer of %d bytes", size)
		}
		pages = append(pages, idsOf(resp.GetEntries()))
		if resp.GetNextPageToken() == "" {
			return pages
		}
		if len(resp.GetEntries()) == 0 {
			r.t.Fatal("an empty page has a token")
		}
		req = proto.CloneOf(req)
		req.PageToken = resp.GetNextPageToken()
		if between != nil {
			between(len(pages))
		}
	}
}

func TestPages(t *testing.T) {
	r := newEntryRig(t)
	var batch []*types.Entry
	for i := range 6 {
		e := plainEntry(fmt.Sprintf("/w%d", i))
		e.Id = fmt.Sprint(i)
		if i%2 == 1 {
			e.Selectors[0].Value = "uid:2"
		}
		batch = append(batch, e)
	}
	r.create(batch...)
	for _, test := range []struct {
		size int32
		f    *listFilter
		want string
	}{
		{0, nil, "[[0 1 2 3 4 5]]"},
		{-1, nil, "[[0 1 2 3 4 5]]"},
		// A page that is not empty always has a token: the last one is empty.
		{2, nil, "[[0 1] [2 3] [4 5] []]"},
		{4, nil, "[[0 1 2 3] [4 5] []]"},
		{100, nil, "[[0 1 2 3 4 5] []]"},
		// A filter leaves no page short.
		{2, &listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_EXACT, "uid:2")}, "[[1 3] [5] []]"},
		{2, &listFilter{BySelectors: selectorMatch(types.SelectorMatch_MATCH_EXACT, "uid:3")}, "[[]]"},
	} {
		got := r.pages(&entryv1.ListEntriesRequest{PageSize: test.size, Filter: test.f}, nil)
		if fmt.Sprint(got) != test.want {
			t.Errorf("pages of %d: %v, want %s", test.size, got, test.want)
		}
	}
	// What is deleted or created between pages moves nothing else.
	got := r.pages(&entryv1.ListEntriesRequest{PageSize: 2}, func(page int) {
		if page != 1 {
			return
		}
		_, err := r.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{"0", "1", "2"}})
		must(t, err)
		e := plainEntry("/late")
		e.Id = "45"
		r.create(e)
	})
	if fmt.Sprint(got) != "[[0 1] [3 4] [45 5] []]" {
		t.Errorf("pages over changes: %v", got)
	}
}

// SPIRE answers these with Internal.
func TestBadPageTokens(t *testing.T) {
	r := newEntryRig(t)
	for _, token := range []string{"x", "12", "-1", entryToken("a") + "=", base64.RawURLEncoding.EncodeToString([]byte("2a")), entryToken("")} {
		for _, size := range []int32{0, 5} {
			_, err := r.ListEntries(t.Context(), &entryv1.ListEntriesRequest{PageSize: size, PageToken: token})
			wantStatus(t, err, codes.InvalidArgument, fmt.Sprintf("malformed page token: %q is not a token of this issuer: begin again without one", token))
		}
	}
}

func TestLargeListIsCutIntoAnswersThatFit(t *testing.T) {
	r := newEntryRig(t)
	const batches, each = 3, 7
	for b := range batches {
		var batch []*types.Entry
		for i := range each {
			e := plainEntry(fmt.Sprintf("/w%d-%d", b, i))
			for j := range 450 {
				e.Selectors = append(e.Selectors, &types.Selector{Type: "t", Value: fmt.Sprintf("%d-%s", j, strings.Repeat("x", 1000))})
			}
			batch = append(batch, e)
		}
		r.create(batch...)
	}
	for _, size := range []int32{0, 10, 1} {
		pages := r.pages(&entryv1.ListEntriesRequest{PageSize: size}, nil)
		ids := slices.Concat(pages...)
		if len(pages) < 3 || len(ids) != batches*each || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != len(ids) {
			t.Errorf("page size %d: %d entries on %d pages", size, len(ids), len(pages))
		}
	}
	// What is masked takes no room.
	if pages := r.pages(&entryv1.ListEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}}, nil); len(pages) != 1 {
		t.Errorf("%d pages with a mask, want 1", len(pages))
	}
}

func FuzzEntryToken(f *testing.F) {
	for _, id := range []string{"", "a", "7e1c5b0e-97f4-4a43-8a4f-4f2f6a1b2c3d", "\x00\xff"} {
		f.Add(id)
		f.Add(entryToken(id))
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != "" {
			if id, err := parseEntryToken(entryToken(s)); err != nil || id != s {
				t.Errorf("token of %q is read as %q, %v", s, id, err)
			}
		}
		// Whatever is accepted is what would have been given out.
		if id, err := parseEntryToken(s); err == nil && s != "" && entryToken(id) != s {
			t.Errorf("%q is accepted as the token of %q", s, id)
		}
	})
}
