// Package identity owns where a sidecar's certificates come from: it turns what
// the Workload API offers into versions of one identity, each immutable. It does
// not speak the Workload API (internal/workload does) and builds no TLS
// configuration.
package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// Identity is one version: an SVID and the bundles that came with it. It is an
// mtls.Source whose answers never change, so a handshake has one view from its
// start to its end.
type Identity struct {
	svid    *x509svid.SVID
	bundles map[spiffeid.TrustDomain]*x509bundle.Bundle
	version uint64
}

// ID is the SPIFFE ID.
func (i *Identity) ID() spiffeid.ID { return i.svid.ID }

// SVID implements mtls.Source.
func (i *Identity) SVID() (*x509svid.SVID, error) { return i.svid, nil }

// Bundle implements mtls.Source.
func (i *Identity) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if b, ok := i.bundles[td]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("no bundle of trust domain %s", td)
}

// Version implements mtls.Versioned: it differs between identities.
func (i *Identity) Version() uint64 { return i.version }

// same reports whether the other identity would change nothing in a handshake.
func (i *Identity) same(o *Identity) bool {
	if !i.svid.Certificates[0].Equal(o.svid.Certificates[0]) || len(i.bundles) != len(o.bundles) {
		return false
	}
	for td, b := range i.bundles {
		if other, ok := o.bundles[td]; !ok || !b.Equal(other) {
			return false
		}
	}
	return true
}

// WorkloadAPI is the identity of one SPIFFE ID from a Workload API.
type WorkloadAPI struct {
	client *workload.Client
	id     spiffeid.ID
	now    func() time.Time

	mu      sync.Mutex
	current *Identity // the last one handed out; guarded by mu
	seen    uint64    // the client's version it was made from; guarded by mu
}

// FromWorkloadAPI returns the identity of id, or of the first SVID offered if id
// is zero. The caller runs client.
func FromWorkloadAPI(client *workload.Client, id spiffeid.ID) *WorkloadAPI {
	return &WorkloadAPI{client: client, id: id, now: time.Now}
}

// Current returns the identity held now. The error says why there is none, and
// wraps workload.ErrNoIdentity or workload.ErrExpired.
func (w *WorkloadAPI) Current() (*Identity, error) { return w.from(w.client.State()) }

// Wait is Current, but waits for an identity until ctx ends; the error then is
// what Current says.
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
	svid, err := state.Select(w.id, w.now())
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != nil && state.Version <= w.seen {
		return w.current, nil
	}
	w.seen = state.Version
	next := &Identity{svid: svid, bundles: state.Context.Bundles, version: state.Version}
	// Agents repeat themselves when they are restarted: that is no new version,
	// and sessions may still be resumed.
	if w.current == nil || !w.current.same(next) {
		w.current = next
	}
	return w.current, nil
}

// Status is what there is to tell about an identity.
type Status struct {
	SPIFFEID   string
	NotAfter   time.Time
	LastUpdate time.Time
	Connected  bool
	// Err is why there is no valid identity; nil if there is one.
	Err error
	// ConnectionErr is why there is no stream; nil if there is one.
	ConnectionErr error
}

// Status tells about the identity held, an expired one included.
func (w *WorkloadAPI) Status() Status {
	state := w.client.State()
	s := Status{LastUpdate: state.Updated, Connected: state.Connected, ConnectionErr: state.Err}
	_, s.Err = state.Select(w.id, w.now())
	if svid, err := state.Select(w.id, time.Time{}); err == nil { // expired or not
		s.SPIFFEID, s.NotAfter = svid.ID.String(), svid.Certificates[0].NotAfter
	}
	return s
}

// Configs returns a function that gives the tls.Config of an identity. build is
// called once for each version, so everything that lives in a configuration, as
// session tickets and session caches do, ends with its version.
func Configs(build func(*Identity) *tls.Config) func(*Identity) *tls.Config {
	var (
		mu     sync.Mutex
		of     *Identity
		config *tls.Config
	)
	return func(i *Identity) *tls.Config {
		mu.Lock()
		defer mu.Unlock()
		if of != i {
			of, config = i, build(i)
		}
		return config
	}
}
