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
	ix := newIndex()
	records := make(map[string]*record)
	for i := range 2000 {
		id := fmt.Sprintf("%02d", rnd.IntN(40))
		if old := records[id]; old != nil {
			ix.remove(old)
			delete(records, id)
		} else {
			r := &record{entry: registration.Entry{ID: id, Selectors: some(4)}}
			records[id] = r
			ix.add(r)
		}
		caller := registration.NewSelectorSet(some(8)...)
		var want []string
		for id, r := range records {
			if caller.HasAll(r.entry.Selectors) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		var got []string
		for _, r := range ix.match(caller, itself) {
			got = append(got, r.entry.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: caller %v: got %v, want %v", i, caller.Sorted(), got, want)
		}
	}
}

func TestEntryWithoutSelectorsMatchesNobody(t *testing.T) {
	ix := newIndex()
	ix.add(&record{entry: registration.Entry{ID: "a"}})
	if got := ix.match(registration.NewSelectorSet(selectors("unix:uid:1")...), itself); len(got) > 0 {
		t.Errorf("matched %v", got)
	}
}

func TestNearest(t *testing.T) {
	ix := newIndex()
	if _, _, ok := ix.nearest(nil); ok {
		t.Error("an entry of none")
	}
	for id, sel := range map[string][]registration.Selector{
		"a": selectors("unix:uid:1", "unix:gid:2", "unix:path:/x"),
		"b": selectors("unix:uid:1", "unix:path:/x"),
		"c": selectors("unix:uid:1", "unix:path:/y"),
		"0": selectors("spiffe_id:spiffe://one.test/spire/agent/x"), // a node alias: nothing a workload can be
	} {
		ix.add(&record{entry: registration.Entry{ID: id, Selectors: sel}})
	}
	e, missing, ok := ix.nearest(registration.NewSelectorSet(selectors("unix:uid:1", "unix:gid:3")...))
	if !ok || e.ID != "b" || !slices.Equal(missing, selectors("unix:path:/x")) {
		t.Errorf("got %s, %v, %v", e.ID, missing, ok)
	}
}

func itself(r *record, _ registration.SelectorSet) *record { return r }
