package registry

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// Match says how the set in a filter is compared with an entry's. Its numbers
// are those of the API's MatchBehavior.
type Match int32

const (
	// MatchExact is set equality.
	MatchExact Match = iota
	// MatchSubset holds if the entry has nothing that the filter has not, and
	// is not empty.
	MatchSubset
	// MatchSuperset holds if the entry has all that the filter has.
	MatchSuperset
	// MatchAny holds if they have something in common.
	MatchAny
)

// Filter selects entries; every part that is set must hold. The zero Filter
// selects all.
type Filter struct {
	SPIFFEID spiffeid.ID
	Template registration.Template
	ParentID spiffeid.ID
	// Selectors filters if it is not empty.
	Selectors      []registration.Selector
	SelectorsMatch Match
	// FederatesWith filters if it is not empty.
	FederatesWith      []spiffeid.TrustDomain
	FederatesWithMatch Match
	Hint               string
	Downstream         *bool
}

// predicate prepares the filter for many entries.
func (f Filter) predicate() func(*node) bool {
	selectors := newMatcher(f.SelectorsMatch, f.Selectors)
	federated := newMatcher(f.FederatesWithMatch, f.FederatesWith)
	return func(n *node) bool {
		return (f.SPIFFEID.IsZero() || n.spiffeID == f.SPIFFEID) &&
			(f.Template.IsZero() || n.template() == f.Template) &&
			(f.ParentID.IsZero() || n.parentID == f.ParentID) &&
			(f.Hint == "" || n.more().hint == f.Hint) &&
			(f.Downstream == nil || n.more().downstream == *f.Downstream) &&
			selectors.match(n.selectors) &&
			federated.match(n.more().federatesWith)
	}
}

// matcher compares sets with one it was made for.
type matcher[T comparable] struct {
	how  Match
	want map[T]struct{}
}

func newMatcher[T comparable](how Match, want []T) matcher[T] {
	m := matcher[T]{how: how, want: make(map[T]struct{}, len(want))}
	for _, one := range want {
		m.want[one] = struct{}{}
	}
	return m
}

// match compares with has, in which the store keeps each once.
func (m matcher[T]) match(has []T) bool {
	if len(m.want) == 0 {
		return true
	}
	common, others := 0, 0
	for _, one := range has {
		if _, ok := m.want[one]; ok {
			common++
		} else {
			others++
		}
	}
	switch m.how {
	case MatchExact:
		return common == len(m.want) && others == 0
	case MatchSubset:
		return common > 0 && others == 0
	case MatchSuperset:
		return common == len(m.want)
	default:
		return common > 0
	}
}

// Entries yields the entries that f selects and whose ID comes after the given
// one, by ID, as they were when the iteration began; expired ones too.
func (r *Registry) Entries(f Filter, after string) iter.Seq[registration.Entry] {
	return func(yield func(registration.Entry) bool) {
		matches := f.predicate()
		candidates := r.candidates(f)
		from, found := slices.BinarySearchFunc(candidates, after, compareID)
		if found {
			from++
		}
		for _, n := range candidates[from:] {
			if matches(n) && !yield(n.entry()) {
				return
			}
		}
	}
}

// Count returns how many entries f selects.
func (r *Registry) Count(f Filter) int {
	matches := f.predicate()
	count := 0
	for _, n := range r.candidates(f) {
		if matches(n) {
			count++
		}
	}
	return count
}

// candidates returns, by ID, entries that include all those that f selects. The
// list is never modified.
func (r *Registry) candidates(f Filter) []*node {
	switch {
	case !f.SPIFFEID.IsZero():
		return r.filed(func(x *index) []*node { return x.bySPIFFEID[f.SPIFFEID] })
	case !f.Template.IsZero():
		return r.filed(func(x *index) []*node { return x.templates[f.Template.Prefix()] })
	case !f.ParentID.IsZero():
		return r.filed(func(x *index) []*node { return x.byParent[f.ParentID] })
	default:
		return r.sortedEntries()
	}
}

func (r *Registry) filed(list func(*index) []*node) []*node {
	r.mu.RLock()
	nodes := slices.Clone(list(r.idx))
	r.mu.RUnlock()
	slices.SortFunc(nodes, compareNodes)
	return nodes
}

// sortedEntries returns every entry by ID. The list is kept, and what changed
// since is merged into a new one, so that paging through very many entries
// while others write does not sort them for each page.
func (r *Registry) sortedEntries() []*node {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	r.mu.RLock()
	idx, clean := r.idx, len(r.idx.dirty) == 0
	r.mu.RUnlock()
	if clean {
		return idx.sorted
	}
	r.mu.Lock()
	idx = r.idx
	changed := make(map[string]*node, len(idx.dirty))
	for id := range idx.dirty {
		changed[id] = idx.entries[id]
	}
	idx.dirty = make(map[string]struct{})
	r.mu.Unlock()
	idx.sorted = merge(idx.sorted, changed)
	return idx.sorted
}

// merge returns a new list: old with what changed, where nil is gone.
func merge(old []*node, changed map[string]*node) []*node {
	merged := make([]*node, 0, len(old)+len(changed))
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		i, found := slices.BinarySearchFunc(old, id, compareID)
		merged = append(merged, old[:i]...)
		old = old[i:]
		if found {
			old = old[1:]
		}
		if n := changed[id]; n != nil {
			merged = append(merged, n)
		}
	}
	return append(merged, old...)
}

func compareID(n *node, id string) int { return strings.Compare(n.id, id) }

func compareNodes(a, b *node) int { return strings.Compare(a.id, b.id) }
