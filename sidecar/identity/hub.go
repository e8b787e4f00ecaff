package identity

import (
	"context"
	"sync"
	"time"
)

// hub keeps the current version and wakes those who wait for the next one.
type hub struct {
	mu      sync.Mutex
	current *Identity     // guarded by mu, as all that follows; nil before the first
	changed chan struct{} // closed and replaced at each change
	version uint64
	known   Status // of current, and of the last attempt
}

func newHub() hub { return hub{changed: make(chan struct{})} }

func (h *hub) observe() (*Identity, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current, h.changed
}

// publish makes i the next version.
func (h *hub) publish(i *Identity, s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current != nil {
		h.current.chains.Forget() // connections that were made with it may hold it for days
	}
	h.version++
	i.version = h.version
	h.current, h.known = i, s
	close(h.changed)
	h.changed = make(chan struct{})
}

// failed keeps the current version, and why there is no newer one.
func (h *hub) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.ConnectionErr = err
}

// succeeded says that the current version was found good again.
func (h *hub) succeeded(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.ConnectionErr, h.known.LastUpdate = nil, now
}

func (h *hub) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

// wait returns the first version that usable has nothing against; if ctx ends before, usable's error.
func (h *hub) wait(ctx context.Context, usable func(*Identity) error) (*Identity, error) {
	for {
		i, changed := h.observe()
		err := usable(i)
		if err == nil {
			return i, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, err
		}
	}
}
