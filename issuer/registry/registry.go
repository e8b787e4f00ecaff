// Package registry owns the index of the issuer's records in memory, which every
// RPC reads: entries by parent, by SPIFFE ID and by node selector, agents, the
// bundle. The store's watch feeds it, one whole transaction at a time. It
// writes nothing of its own, except that it has expired records deleted.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

const (
	// pruneInterval is how often expired records are deleted; SPIRE's.
	pruneInterval = 5 * time.Minute
	// retryInterval is between attempts to read from a store that works but
	// does not answer.
	retryInterval = 200 * time.Millisecond
)

// Registry is an index over a store. It is safe for concurrent use. What its
// methods return is shared and must not be modified.
type Registry struct {
	store *store.Store
	log   *slog.Logger

	ready   chan struct{} // closed after the first list
	stopped chan struct{} // closed when Run returns

	// recalled is closed when the history reaches as far back as it ever will.
	recalled chan struct{}

	// listed says that the index can be brought up to date by a watch. It is
	// Run's alone.
	listed bool

	mu      sync.RWMutex
	idx     *index
	applied store.Revision
	waiters []waiter
	changed chan struct{}
	// acks is the newest bundle that each agent has acknowledged; acked is
	// closed, and replaced, when Hold may answer differently.
	acks  map[spiffeid.ID]uint64
	acked chan struct{}

	// What followers are told is as of applied and of the second asOf: pass lets
	// the one go on as apply does the other. lastEnd is when an entry expired last.
	followers followers
	history   history
	first     store.Revision // of the first list
	asOf      int64          // Unix
	lastEnd   int64
	// awaited is the expiry that clock waits for, 0 for none; sooner, with room for
	// one, has it look again.
	awaited int64
	sooner  chan struct{}

	// since is how many records have changed since busy was last told.
	since int
	busy  chan struct{} // has room for one

	// viewMu is taken before mu by whoever renews the sorted view of an index.
	viewMu sync.Mutex
}

// New returns a registry that is empty until Run has read the store. It shares
// the store's clock. log may be nil.
func New(st *store.Store, log *slog.Logger) *Registry {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registry{
		store:    st,
		log:      log,
		ready:    make(chan struct{}),
		stopped:  make(chan struct{}),
		recalled: make(chan struct{}),
		idx:      newIndex(st.TrustDomain()),
		changed:  make(chan struct{}),
		busy:     make(chan struct{}, 1),
		acks:     make(map[spiffeid.ID]uint64),
		acked:    make(chan struct{}),
		sooner:   make(chan struct{}, 1),

		followers: newFollowers(),
		history:   history{limit: maxHistory},
	}
}

// Run reads the store and follows it until ctx ends, and returns nil then. It
// returns an error only if the store has failed. It must be called once.
func (r *Registry) Run(ctx context.Context) error {
	defer close(r.stopped)
	ctx, cancel := context.WithCancel(ctx)
	var janitor sync.WaitGroup
	janitor.Go(func() { r.prune(ctx) })
	janitor.Go(func() { r.tidy(ctx) })
	janitor.Go(func() { r.clock(ctx) })
	janitor.Go(func() { r.recall(ctx) })
	defer janitor.Wait()
	defer cancel()

	for {
		err := r.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case r.store.Err() != nil:
			return r.store.Err()
		case errors.Is(err, store.ErrCompacted):
			r.log.Info("fell behind the store; reading all of it again")
			r.listed = false
		default:
			r.log.Warn("cannot follow the store; trying again", "error", err)
			select {
			case <-time.After(retryInterval):
			case <-ctx.Done():
			}
		}
	}
}

// follow applies what the store tells until that fails, after reading the whole
// store if that is needed.
func (r *Registry) follow(ctx context.Context) error {
	if !r.listed {
		var idx *index
		snap, err := r.store.Load(ctx, func() func(registration.Entry) {
			idx = newIndex(r.store.TrustDomain())
			return func(e registration.Entry) { idx.putEntry(newNode(e)) }
		})
		if err != nil {
			return err
		}
		r.replaceIndex(idx, snap)
		r.listed = true
	}
	return r.store.Watch(ctx, r.appliedRevision(), func(b store.Batch) error {
		r.apply(b)
		return nil
	})
}

func (r *Registry) appliedRevision() store.Revision {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.applied
}

// replace takes a snapshot in place of the whole index; readers see the one or
// the other.
func (r *Registry) replace(snap store.Snapshot) {
	r.replaceIndex(newIndex(r.store.TrustDomain()), snap)
}

// replaceIndex is replace with an index that may have the entries already.
func (r *Registry) replaceIndex(idx *index, snap store.Snapshot) {
	idx.load(snap)
	idx.reuse(r.idx) // which nobody else replaces
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relisted(idx, snap.Revision)
	for id := range r.acks {
		if _, ok := idx.agents[id]; !ok {
			delete(r.acks, id)
		}
	}
	r.stirAcks()
	r.count(len(idx.entries) + len(idx.agents))
	r.advance(snap.Revision, true)
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
}

func (r *Registry) apply(b store.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pass(r.store.Now().Unix())
	agents := false
	m, share := marker{r: r}, newSharer()
	for _, e := range b.Events {
		switch e.Kind {
		case store.KindEntry:
			var n *node
			if !e.Deleted {
				n = share.node(e.Entry)
			}
			m.entry(b.Revision, e.ID, n)
		case store.KindAgent:
			agents = true
			r.forgetAck(e)
			m.agent(b.Revision, e)
		case store.KindBundle, store.KindFederatedBundle:
			m.bundle(b.Revision, e)
		default:
			r.idx.apply(e)
		}
	}
	r.hasten()
	if agents {
		r.stirAcks()
	}
	r.count(len(b.Events))
	r.advance(b.Revision, len(b.Events) > 0)
}

// advance wakes who waited for rev. mu is held.
func (r *Registry) advance(rev store.Revision, changed bool) {
	r.applied = rev
	late := r.waiters[:0]
	for _, w := range r.waiters {
		if w.rev <= rev {
			close(w.arrived)
		} else {
			late = append(late, w)
		}
	}
	clear(r.waiters[len(late):])
	r.waiters = late
	if changed {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// Ready is closed when the registry has read the store once.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Changed returns a channel that is closed at the next change of any record.
// Take it before reading, and no change is missed.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

// Entry returns the entry with the ID, expired or not.
func (r *Registry) Entry(id string) (registration.Entry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n, ok := r.idx.entries[id]
	if !ok {
		return registration.Entry{}, false
	}
	return n.entry(), true
}
