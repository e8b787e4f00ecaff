package registry

import (
	"context"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// maxRecall bounds how long the store is asked for its history.
const maxRecall = 10 * time.Second

// Recalled is closed when the history that the store keeps of the time before
// this start has been read, if only in vain.
func (r *Registry) Recalled() <-chan struct{} { return r.recalled }

// recall reads what history the store keeps of the time before the first list, so
// that a restart does not have every agent told everything again.
func (r *Registry) recall(ctx context.Context) {
	defer close(r.recalled)
	select {
	case <-r.ready:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxRecall)
	defer cancel()
	r.mu.RLock()
	first := r.first
	r.mu.RUnlock()
	older := history{limit: r.history.limit}
	share := newSharer()
	begin, err := r.store.Past(ctx, first, func(rev store.Revision, was store.Event) {
		if c, ok := changeFrom(rev, was, share, r.store.TrustDomain().Name()); ok {
			older.add(c)
		}
	})
	if err != nil {
		if ctx.Err() == nil {
			r.log.Info("the store's history is not read: agents are told everything again", "error", err)
		}
		return
	}
	older.base = max(older.base, begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.prepend(older, first)
}

// changeFrom is the change of a record that was so.
func changeFrom(rev store.Revision, was store.Event, share sharer, own string) (change, bool) {
	c := change{rev: rev, kind: was.Kind, id: was.ID}
	switch was.Kind {
	case store.KindEntry:
		if !was.Deleted {
			c.node = share.node(was.Entry)
		}
	case store.KindAgent:
		if !was.Deleted {
			c.selectors = selectorsOf(was.Agent)
		}
	case store.KindBundle:
		c.id, c.bundle = own, was.Bundle
	case store.KindFederatedBundle:
		c.bundle = was.Bundle
	default:
		return change{}, false
	}
	return c, true
}

// prepend puts older changes, which end with a revision, before those there are,
// if these begin with it and there is room.
func (h *history) prepend(older history, end store.Revision) {
	if h.base != end {
		return
	}
	for older.gone < len(older.changes) && older.size+h.size > h.limit {
		older.drop()
	}
	h.base = older.base
	h.changes = append(older.changes[older.gone:len(older.changes):len(older.changes)], h.changes[h.gone:]...)
	h.gone, h.size = 0, h.size+older.size
	h.mark = end
}
