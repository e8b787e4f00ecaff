package registry_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
)

func TestFilters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	other := spiffeid.RequireTrustDomainFromString("other.test")
	third := spiffeid.RequireTrustDomainFromString("third.test")
	sel := func(values ...string) (s []registration.Selector) {
		for _, v := range values {
			s = append(s, registration.Selector{Type: "t", Value: v})
		}
		return s
	}
	e1 := entry("/1", agentA)
	e1.Selectors = sel("a")
	e2 := entry("/2", agentA)
	e2.Selectors = sel("a", "b")
	e2.FederatesWith = []spiffeid.TrustDomain{other}
	e3 := entry("/3", agentB)
	e3.Selectors = sel("b", "c")
	e3.FederatesWith = []spiffeid.TrustDomain{other, third, other}
	e3.Hint, e3.Downstream = "h", true
	r.create(e1, e2, e3)

	yes, no := true, false
	for name, test := range map[string]struct {
		filter registry.Filter
		want   []string
	}{
		"all":                     {registry.Filter{}, []string{"1", "2", "3"}},
		"spiffe id":               {registry.Filter{SPIFFEID: id("/2")}, []string{"2"}},
		"parent":                  {registry.Filter{ParentID: agentA}, []string{"1", "2"}},
		"parent and spiffe id":    {registry.Filter{ParentID: agentB, SPIFFEID: id("/1")}, nil},
		"hint":                    {registry.Filter{Hint: "h"}, []string{"3"}},
		"downstream":              {registry.Filter{Downstream: &yes}, []string{"3"}},
		"not downstream":          {registry.Filter{Downstream: &no}, []string{"1", "2"}},
		"selectors exact":         {registry.Filter{Selectors: sel("b", "a", "a"), SelectorsMatch: registry.MatchExact}, []string{"2"}},
		"selectors subset":        {registry.Filter{Selectors: sel("a", "b"), SelectorsMatch: registry.MatchSubset}, []string{"1", "2"}},
		"selectors superset":      {registry.Filter{Selectors: sel("b"), SelectorsMatch: registry.MatchSuperset}, []string{"2", "3"}},
		"selectors any":           {registry.Filter{Selectors: sel("a", "c"), SelectorsMatch: registry.MatchAny}, []string{"1", "2", "3"}},
		"selectors none":          {registry.Filter{Selectors: sel("z"), SelectorsMatch: registry.MatchAny}, nil},
		"federates exact":         {registry.Filter{FederatesWith: []spiffeid.TrustDomain{third, other}, FederatesWithMatch: registry.MatchExact}, []string{"3"}},
		"federates subset":        {registry.Filter{FederatesWith: []spiffeid.TrustDomain{third, other}, FederatesWithMatch: registry.MatchSubset}, []string{"2", "3"}},
		"federates superset":      {registry.Filter{FederatesWith: []spiffeid.TrustDomain{other}, FederatesWithMatch: registry.MatchSuperset}, []string{"2", "3"}},
		"federates any":           {registry.Filter{FederatesWith: []spiffeid.TrustDomain{third}, FederatesWithMatch: registry.MatchAny}, []string{"3"}},
		"parent and selectors":    {registry.Filter{ParentID: agentA, Selectors: sel("b"), SelectorsMatch: registry.MatchAny}, []string{"2"}},
		"nothing with all of it":  {registry.Filter{Hint: "h", Downstream: &no}, nil},
		"spiffe id not here":      {registry.Filter{SPIFFEID: id("/nowhere")}, nil},
		"selectors of everything": {registry.Filter{Selectors: sel("a", "b", "c"), SelectorsMatch: registry.MatchSuperset}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := slices.Collect(r.ids(test.filter)); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if n := r.Count(test.filter); n != len(test.want) {
				t.Errorf("Count is %d, want %d", n, len(test.want))
			}
		})
	}
}

// The kept list of all entries stays right under any mix of changes.
func TestSortedEntriesFollowChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	rng := rand.New(rand.NewPCG(1, 2))
	want := make(map[string]int64)
	for range 60 {
		var fresh []registration.Entry
		for range rng.IntN(5) {
			e := entry(fmt.Sprintf("/%04d", rng.IntN(10_000)), agentA)
			if _, ok := want[e.ID]; !ok {
				want[e.ID] = 0
				fresh = append(fresh, e)
			}
		}
		r.create(fresh...)
		for id := range want {
			switch rng.IntN(8) {
			case 0:
				_, rev, err := r.store.DeleteEntries(t.Context(), []string{id})
				if err != nil {
					t.Fatal(err)
				}
				r.wait(rev)
				delete(want, id)
			case 1:
				_, rev, err := r.store.UpdateEntry(t.Context(), id, func(*registration.Entry) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				r.wait(rev)
				want[id]++
			}
		}
		last, n := "", 0
		for e := range r.Entries(registry.Filter{}, "") {
			if e.ID <= last {
				t.Fatalf("%s comes after %s", e.ID, last)
			}
			if rev, ok := want[e.ID]; !ok || rev != e.Revision {
				t.Fatalf("entry %s: revision %d, want %d, %v", e.ID, e.Revision, rev, ok)
			}
			last = e.ID
			n++
		}
		if n != len(want) {
			t.Fatalf("%d entries, want %d", n, len(want))
		}
	}
}

func TestPagesAfterAnID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	r.create(entry("/a", agentA), entry("/c", agentA), entry("/e", agentA))
	for after, want := range map[string][]string{
		"": {"a", "c", "e"}, "a": {"c", "e"}, "b": {"c", "e"}, "c": {"e"}, "e": nil, "f": nil,
	} {
		var got []string
		for e := range r.Entries(registry.Filter{ParentID: agentA}, after) {
			got = append(got, e.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %q: %v, want %v", after, got, want)
		}
	}
}
