package registry

import (
	"context"
	"errors"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// waiter is one call of Wait.
type waiter struct {
	rev     store.Revision
	arrived chan struct{}
}

// Wait returns when every change up to rev can be read here, so that who has
// written reads its own writes. It fails if ctx ends or Run has.
func (r *Registry) Wait(ctx context.Context, rev store.Revision) error {
	r.mu.Lock()
	if r.applied >= rev {
		r.mu.Unlock()
		return nil
	}
	w := waiter{rev: rev, arrived: make(chan struct{})}
	r.waiters = append(r.waiters, w)
	r.mu.Unlock()
	select {
	case <-w.arrived:
		return nil
	case <-ctx.Done():
		r.forget(w)
		return context.Cause(ctx)
	case <-r.stopped:
		return errors.New("registry: has stopped")
	}
}

func (r *Registry) forget(gone waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, w := range r.waiters {
		if w.arrived == gone.arrived {
			r.waiters[i] = r.waiters[len(r.waiters)-1]
			r.waiters[len(r.waiters)-1] = waiter{}
			r.waiters = r.waiters[:len(r.waiters)-1]
			return
		}
	}
}
