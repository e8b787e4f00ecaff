package svidcache

import (
	"cmp"
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// index finds the records whose selectors a caller has all of. Each record is
// filed under one of its selectors, the one with the fewest records so far, so
// that a caller's look-up reads few records however many there are.
type index struct {
	bySelector map[registration.Selector]map[*record]struct{}
	filedUnder map[*record]registration.Selector
}

func newIndex() index {
	return index{
		bySelector: make(map[registration.Selector]map[*record]struct{}),
		filedUnder: make(map[*record]registration.Selector),
	}
}

func (ix *index) add(r *record) {
	if len(r.entry.Selectors) == 0 {
		return // would match everybody
	}
	best := slices.MinFunc(r.entry.Selectors, func(a, b registration.Selector) int {
		return cmp.Compare(len(ix.bySelector[a]), len(ix.bySelector[b]))
	})
	if ix.bySelector[best] == nil {
		ix.bySelector[best] = make(map[*record]struct{})
	}
	ix.bySelector[best][r] = struct{}{}
	ix.filedUnder[r] = best
}

func (ix *index) remove(r *record) {
	sel, ok := ix.filedUnder[r]
	if !ok {
		return
	}
	delete(ix.filedUnder, r)
	delete(ix.bySelector[sel], r)
	if len(ix.bySelector[sel]) == 0 {
		delete(ix.bySelector, sel)
	}
}

// match returns what a caller is given, ordered by entry ID;
// expand says what is given for a record, nil for nothing.
// Entries that are stored elsewhere (StoreSVID) are not; of those with the same
// hint, the oldest is (SPIFFE Workload API, section 5.2.1).
func (ix *index) match(caller Caller, expand func(*record, []registration.Selector) *record) []*record {
	selectors := registration.NewSelectorSet(caller.Selectors...)
	var found []*record
	for sel := range selectors {
		for r := range ix.bySelector[sel] {
			if r.entry.StoreSVID || !caller.may(r.entry.Selectors) || !selectors.HasAll(r.entry.Selectors) {
				continue
			}
			if r = expand(r, caller.Selectors); r != nil {
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, func(a, b *record) int { return cmp.Compare(a.entry.ID, b.entry.ID) })
	oldest := make(map[string]*record)
	for _, r := range found {
		if other := oldest[r.entry.Hint]; other == nil || r.entry.CreatedAt.Before(other.entry.CreatedAt) {
			oldest[r.entry.Hint] = r
		}
	}
	return slices.DeleteFunc(found, func(r *record) bool {
		return r.entry.Hint != "" && oldest[r.entry.Hint] != r
	})
}

// isNodeAlias reports whether e gives an agent, and no workload, another ID.
func isNodeAlias(e registration.Entry) bool {
	return slices.ContainsFunc(e.Selectors, func(s registration.Selector) bool { return s.Type == "spiffe_id" })
}
