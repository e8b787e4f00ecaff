package registry

import (
	"iter"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// Position says what a follower has been told: all as of a revision, without
// what had expired in a second. The zero Position is nothing at all.
type Position struct {
	Revision store.Revision
	Second   int64 // Unix
}

// Delta is what changed for an agent between two positions.
type Delta struct {
	// Reset says that the rest is all there is.
	Reset bool
	// Removed are IDs of entries that the agent may have no more.
	Removed []string
	// Bundles are new or changed, RemovedBundles the names of trust domains whose
	// bundle is not there any more, or none of the agent's business.
	Bundles        []*types.Bundle
	RemovedBundles []string
	// To is the position that the delta leads to.
	To Position

	nodes []*node
}

// Entries yields the entries that are new or changed, by ID.
func (d Delta) Entries() iter.Seq[registration.Entry] {
	return func(yield func(registration.Entry) bool) {
		for _, n := range d.nodes {
			if !yield(n.entry()) {
				return
			}
		}
	}
}

// Empty reports whether nothing has changed.
func (d Delta) Empty() bool {
	return !d.Reset && len(d.nodes)+len(d.Removed)+len(d.Bundles)+len(d.RemovedBundles) == 0
}

// maxPending bounds what a follower remembers of changes that it has not told of.
// With more it compares all that there was with all that there is.
const maxPending = 500

// Follower follows what one agent may know: its authorized entries, the bundle
// of the trust domain and those that the entries federate with. It holds none of
// that: it is woken by what concerns it, and tells then what has changed since it
// was asked last, however long ago. One goroutine at a time uses it.
type Follower struct {
	r         *Registry
	agent     spiffeid.ID
	templates bool
	woken     chan struct{} // has room for one

	// What follows is written under the registry's lock: by its writer, and by
	// Next, which holds it for reading as the writer never does meanwhile.

	selectors registration.SelectorSet // as it is filed
	told      Position
	// whole says that pending does not tell all that has changed since told.
	whole   bool
	pending map[string]pending
	// domains counts the entries told that federate with each trust domain;
	// bundles are those told. nil, they are not known yet.
	domains map[string]int
	bundles map[string]*bundle
}

// pending is an entry that has changed: as it was told, and as it is; nil where
// it was or is not the agent's.
type pending struct{ was, is *node }

// Follow returns a follower for an agent that has been told all as of a
// position, or nothing. Without templates, entries with ID templates are left
// out; they must have been before. It must be closed.
func (r *Registry) Follow(agent spiffeid.ID, templates bool, from Position) *Follower {
	f := &Follower{r: r, agent: agent, templates: templates, told: from, whole: true, woken: make(chan struct{}, 1)}
	f.wake() // there may be something already
	r.mu.Lock()
	defer r.mu.Unlock()
	r.followers.add(f, r.idx)
	return f
}

// Close ends the following.
func (f *Follower) Close() {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.followers.remove(f)
}

// Woken delivers when Next may have something to tell, and at any change of the
// agent's record.
func (f *Follower) Woken() <-chan struct{} { return f.woken }

// Next returns what has changed since the last call, or since the position that
// the following began from. It may be empty, and leads to the present even so.
func (f *Follower) Next() Delta {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	now := view{idx: f.r.idx, second: f.r.asOf}
	var d Delta
	if f.whole || f.domains == nil {
		d = f.compare(now)
	} else {
		d = f.gather(now)
	}
	f.pending, f.whole = nil, false
	d.To = Position{f.r.applied, f.r.asOf}
	f.told = d.To
	return d
}

// wake has Next called soon.
func (f *Follower) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}
