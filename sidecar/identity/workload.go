package identity

import (
	"context"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// WorkloadAPI is the Source of one SVID of a Workload API.
type WorkloadAPI struct {
	client *workload.Client
	choice workload.Choice
	show   bool // the SVID is shown to peers; otherwise it may be expired
	now    func() time.Time

	mu      sync.Mutex
	current *Identity // the last one handed out; guarded by mu
	seen    uint64    // the client's version it was made from; guarded by mu
}

// FromWorkloadAPI returns the identity of id, or of the first SVID offered if id
// is zero. The caller runs client.
func FromWorkloadAPI(client *workload.Client, id spiffeid.ID) *WorkloadAPI {
	return &WorkloadAPI{client: client, choice: workload.Choice{ID: id}, show: true, now: time.Now}
}

func newWorkloadAPI(c Config, d Deps) (Source, error) {
	client, err := workload.New(workload.Config{Addr: c.WorkloadAPI, Log: d.Log, Now: d.Now})
	if err != nil {
		return nil, addrError(c.WorkloadAPI, err)
	}
	return &WorkloadAPI{client: client, choice: workload.Choice{ID: c.SPIFFEID, Hint: c.Hint}, show: !c.None, now: d.Now}, nil
}

// Load implements Source: there is nothing to read.
func (w *WorkloadAPI) Load(context.Context) error { return nil }

// Run implements Source.
func (w *WorkloadAPI) Run(ctx context.Context) error { return w.client.Run(ctx) }

// Reload implements Source: the Workload API tells of changes by itself.
func (w *WorkloadAPI) Reload(context.Context) error { return nil }

// Current implements Source.
func (w *WorkloadAPI) Current() (*Identity, error) { return w.from(w.client.State()) }

// Wait implements Source.
func (w *WorkloadAPI) Wait(ctx context.Context) (*Identity, error) {
	for {
		state, changed := w.client.Observe()
		identity, err := w.from(state)
		if err == nil {
			return identity, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (w *WorkloadAPI) from(state workload.State) (*Identity, error) {
	var now time.Time // before any expiry
	if w.show {
		now = w.now()
	}
	svid, err := state.Choose(w.choice, now)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != nil && state.Version <= w.seen {
		return w.current, nil
	}
	w.seen = state.Version
	next := &Identity{version: state.Version, svid: svid, bundles: state.Context.Bundles}
	if w.show {
		next.certificate = certificateOf(svid)
	}
	// Agents repeat themselves when they are restarted: that is no new version,
	// and sessions may still be resumed.
	if w.current == nil || !w.current.same(next) {
		if w.current != nil {
			w.current.chains.Forget() // connections that were made with it may hold it for days
		}
		w.current = next
	}
	return w.current, nil
}

// Status implements Source.
func (w *WorkloadAPI) Status() Status {
	state := w.client.State()
	s := Status{Source: "Workload API " + w.client.Addr().String(), LastUpdate: state.Updated, Connected: state.Connected, ConnectionErr: state.Err}
	_, s.Err = w.from(state)
	if svid, err := state.Choose(w.choice, time.Time{}); err == nil { // expired or not
		leaf := svid.Certificates[0]
		s.SPIFFEID, s.NotBefore, s.NotAfter = svid.ID.String(), leaf.NotBefore, leaf.NotAfter
	}
	if state.Context != nil {
		s.Bundles = bundleStatus(state.Context.Bundles, state.Updated)
	}
	return s
}
