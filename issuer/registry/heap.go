package registry

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// restAfter is how long nothing may change before a burst counts as over.
	restAfter = 3 * time.Second
	// burst is how many records have to change to make it worth a collection.
	burst = 5000
)

// tidy gives the memory that a burst of changes needed, the first list of the
// store among them, back to the system when it is over. The runtime would by
// itself keep twice what is in use until the next collection, which an issuer
// at rest hardly has, and the system would get it back over minutes.
func (r *Registry) tidy(ctx context.Context) {
	rest := time.NewTimer(restAfter)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.busy:
			rest.Reset(restAfter)
		case <-rest.C:
			debug.FreeOSMemory()
		}
	}
}

// count notes that n records have changed. mu is held.
func (r *Registry) count(n int) {
	if r.since += n; r.since < burst {
		return
	}
	r.since = 0
	select {
	case r.busy <- struct{}{}:
	default:
	}
}
