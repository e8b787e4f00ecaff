package registry

import (
	"iter"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// view is the records as they are, or were at a revision, in the eyes of a
// second: what expires by then is not there. Which entries an agent may have is
// a pure function of both. It is read under the registry's lock.
type view struct {
	idx    *index
	second int64 // Unix
	past   *past // nil is the present
}

func (v view) live(n *node) bool { return !n.expiredAt(v.second) }

// here reports whether n, which the index has, was there.
func (v view) here(n *node) bool {
	if v.past == nil || len(v.past.entries) == 0 {
		return true
	}
	_, changed := v.past.entries[n.id]
	return !changed
}

// below yields the live entries whose parent has the ID.
func (v view) below(parent spiffeid.ID) iter.Seq[*node] {
	return func(yield func(*node) bool) {
		for _, n := range v.idx.byParent[parent] {
			if v.here(n) && v.live(n) && !yield(n) {
				return
			}
		}
		if v.past == nil {
			return
		}
		for _, n := range v.past.byParent[parent] {
			if v.live(n) && !yield(n) {
				return
			}
		}
	}
}

// leads reports whether anything may hang from the ID. Most IDs are nobody's
// parent.
func (v view) leads(id spiffeid.ID) bool {
	return len(v.idx.byParent[id]) > 0 || v.past != nil && len(v.past.byParent[id]) > 0
}

// selectors are those of an agent; none of one that is not known.
func (v view) selectors(agent spiffeid.ID) registration.SelectorSet {
	if v.past != nil {
		if selectors, changed := v.past.selectors[agent]; changed {
			return selectors
		}
	}
	return v.idx.agents[agent].selectors
}

// starts returns the IDs that entries for the agent hang from: its own, and
// those of the node aliases whose selectors it has.
func (v view) starts(agent spiffeid.ID) []spiffeid.ID {
	if !v.idx.hasEntries(agent) {
		return nil
	}
	// An agent that is not here yet has its own entries already: it was
	// authenticated, and its record is on the way.
	ids := []spiffeid.ID{agent}
	selectors := v.selectors(agent)
	for s := range selectors {
		for _, n := range v.idx.aliases[s] {
			if v.here(n) && v.live(n) && selectors.HasAll(n.selectors) {
				ids = append(ids, n.spiffeID)
			}
		}
	}
	if v.past != nil {
		for _, n := range v.past.aliases {
			if v.live(n) && selectors.HasAll(n.selectors) {
				ids = append(ids, n.spiffeID)
			}
		}
	}
	return ids
}

// reachable returns the entries that the agent may have, each once, and the
// parents of them all.
func (v view) reachable(agent spiffeid.ID) (found []*node, seen map[spiffeid.ID]struct{}) {
	// An entry has one parent; so it is found once if no parent is seen twice.
	seen = make(map[spiffeid.ID]struct{})
	todo := v.starts(agent)
	for len(todo) > 0 {
		parent := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := seen[parent]; ok {
			continue
		}
		seen[parent] = struct{}{}
		found = slices.Grow(found, len(v.idx.byParent[parent]))
		for n := range v.below(parent) {
			found = append(found, n)
			if v.leads(n.spiffeID) {
				todo = append(todo, n.spiffeID)
			}
		}
	}
	return found, seen
}

// bundle returns that of a trust domain, the own one included; nil where there
// is none.
func (v view) bundle(name string) *bundle {
	if v.past != nil {
		if b, changed := v.past.bundles[name]; changed {
			return b
		}
	}
	if name == v.idx.td.Name() {
		return v.idx.bundle
	}
	return v.idx.federated[name]
}
