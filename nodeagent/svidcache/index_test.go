package svidcache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// The index finds what trying each entry finds.
func TestIndexMatchesAsATrialOfAll(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	some := func(most int) []registration.Selector {
		var sel []registration.Selector
		for range 1 + rnd.IntN(most) {
			sel = append(sel, registration.Selector{Type: "unix", Value: fmt.Sprint(rnd.IntN(8))})
		}
		return registration.SortSelectors(sel)
	}
	ix := make(index)
	records := make(map[string]*record)
	for i := range 2000 {
		id := fmt.Sprintf("%02d", rnd.IntN(40))
		if old := records[id]; old != nil {
			ix.remove(old)
			delete(records, id)
		} else {
			r := &record{fields: &fields{id: id, selectors: some(4)}}
			records[id] = r
			ix.add(r)
		}
		caller := Caller{Selectors: some(8)}
		set := registration.NewSelectorSet(caller.Selectors...)
		var want []string
		for id, r := range records {
			if set.HasAll(r.selectors) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		var got []string
		for _, r := range ix.match(caller, itself) {
			got = append(got, r.id)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: caller %v: got %v, want %v", i, caller.Selectors, got, want)
		}
	}
}

func TestEntryWithoutSelectorsMatchesNobody(t *testing.T) {
	ix := make(index)
	ix.add(&record{fields: &fields{id: "a"}})
	if got := ix.match(caller("unix:uid:1"), itself); len(got) > 0 {
		t.Errorf("matched %v", got)
	}
}

func itself(r *record, _ []registration.Selector) *record { return r }
