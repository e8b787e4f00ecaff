package workload

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// State is what a Client holds and how well it is connected, at one moment.
type State struct {
	// Context is the last good answer; nil before the first one and after the
	// Workload API said PermissionDenied. Its SVIDs may have expired.
	Context *X509Context
	// Version grows by one whenever Context is replaced or dropped.
	Version uint64
	// Updated is when Context arrived; zero before the first answer.
	Updated time.Time
	// Connected is true while a stream is open that has answered.
	Connected bool
	// Err is why there is no stream, or why the last answer was discarded; nil
	// while all is well and before the first try has ended.
	Err error
}

// Denied reports whether the Workload API last said that this workload has no
// identity.
func (s State) Denied() bool { return status.Code(s.Err) == codes.PermissionDenied }

// hub keeps the current state and wakes those who wait for the next one.
type hub struct {
	mu      sync.Mutex
	state   State         // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each change
}

func newHub() *hub { return &hub{changed: make(chan struct{})} }

func (h *hub) observe() (State, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.changed
}

func (h *hub) update(change func(*State)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.state)
	close(h.changed)
	h.changed = make(chan struct{})
}

// State returns the current state.
func (c *Client) State() State {
	s, _ := c.hub.observe()
	return s
}

// Observe returns the current state and a channel that is closed when it has
// been replaced, so that no last change can be missed.
func (c *Client) Observe() (State, <-chan struct{}) { return c.hub.observe() }
