package svidcache

import (
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// index finds the records whose selectors a caller has all of. Each record is
// filed under one of its selectors, the one with the fewest records so far, so
// that a caller's look-up reads few records however many there are.
type index map[registration.Selector]shelf

// shelf is the records that are filed under one selector, linked.
type shelf struct {
	first *record
	count int32
}

func (ix index) add(r *record) {
	best := int32(-1)
	for i, s := range r.selectors {
		if best < 0 || ix[s].count < ix[r.selectors[best]].count {
			best = int32(i)
		}
	}
	if best < 0 {
		return // no selectors: would match everybody
	}
	r.pivot = best + 1
	sel := r.selectors[best]
	sh := ix[sel]
	if r.next = sh.first; r.next != nil {
		r.next.prev = r
	}
	ix[sel] = shelf{first: r, count: sh.count + 1}
}

func (ix index) remove(r *record) {
	if r.pivot == 0 {
		return
	}
	sel := r.selectors[r.pivot-1]
	sh := ix[sel]
	sh.count--
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		sh.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.next, r.prev, r.pivot = nil, nil, 0
	if sh.first == nil {
		delete(ix, sel)
		return
	}
	ix[sel] = sh
}

// match returns what a caller, which is normal, is given, ordered by entry ID;
// expand says what is given for a record, nil for nothing.
// Entries that are stored elsewhere (StoreSVID) are not, and none that have
// ended; of those with the same hint, the oldest is (SPIFFE Workload API, section
// 5.2.1).
func (ix index) match(caller Caller, expand func(*record, []registration.Selector) *record) []*record {
	var found []*record
	hints := false
	for _, sel := range caller.Selectors {
		for r := ix[sel].first; r != nil; r = r.next {
			more := r.more()
			if more.storeSVID || r.ended || !caller.may(r.selectors) || !hasAll(caller.Selectors, r.selectors) {
				continue
			}
			if one := expand(r, caller.Selectors); one != nil {
				found = append(found, one)
				hints = hints || more.hint != ""
			}
		}
	}
	slices.SortFunc(found, byID)
	if hints {
		return withoutTwins(found)
	}
	return found
}

// withoutTwins leaves out what has the hint of an older one. Records are in the
// order of their IDs, which decides between two of one second.
func withoutTwins(found []*record) []*record {
	oldest := make(map[string]*record)
	for _, r := range found {
		if other := oldest[r.more().hint]; other == nil || r.created < other.created {
			oldest[r.more().hint] = r
		}
	}
	return slices.DeleteFunc(found, func(r *record) bool { return r.more().hint != "" && oldest[r.more().hint] != r })
}

// audience finds the groups that have all selectors of an entry: those that the
// entry's change may concern.
type audience map[registration.Selector][]*group

func (a audience) add(g *group) {
	for _, s := range g.caller.Selectors {
		a[s] = append(a[s], g)
	}
}

func (a audience) remove(g *group) {
	for _, s := range g.caller.Selectors {
		list := a[s]
		i := slices.Index(list, g)
		list[i] = list[len(list)-1]
		list[len(list)-1] = nil
		if list = list[:len(list)-1]; len(list) == 0 {
			delete(a, s)
		} else {
			a[s] = list
		}
	}
}

// of adds the groups that have all of the selectors to touched.
func (a audience) of(selectors []registration.Selector, touched map[*group]struct{}) {
	if len(selectors) == 0 {
		return
	}
	fewest := a[selectors[0]]
	for _, s := range selectors[1:] {
		if list := a[s]; len(list) < len(fewest) {
			fewest = list
		}
	}
	for _, g := range fewest {
		if hasAll(g.caller.Selectors, selectors) {
			touched[g] = struct{}{}
		}
	}
}
