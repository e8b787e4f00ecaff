package spiretest

import (
	"crypto/x509"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// world is what the issuers of a trust domain share.
type world struct {
	mu        sync.Mutex
	bundle    *x509bundle.Bundle
	tainted   []*x509.Certificate
	federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	jwt       jwtKeys
	tokens    map[string]*token
	agents    map[spiffeid.ID]*agent
	nodeKeys  map[[32]byte]spiffeid.ID // bound by join_key
	sequence  uint64                   // of the bundle
	entries   map[string]registration.Entry

	signer         *testca.CA
	revision       uint64
	touchedEntries map[string]uint64               // revision of the last change, deletion too
	touchedBundles map[spiffeid.TrustDomain]uint64 // likewise
	changed        chan struct{}                   // closed and replaced at each change
}

func newWorld(ca *testca.CA) *world {
	return &world{
		bundle: ca.Bundle(), signer: ca,
		federated:      make(map[spiffeid.TrustDomain]*x509bundle.Bundle),
		tokens:         make(map[string]*token),
		agents:         make(map[spiffeid.ID]*agent),
		nodeKeys:       make(map[[32]byte]spiffeid.ID),
		sequence:       1,
		entries:        make(map[string]registration.Entry),
		revision:       1,
		touchedEntries: make(map[string]uint64),
		touchedBundles: make(map[spiffeid.TrustDomain]uint64),
		changed:        make(chan struct{}),
	}
}

// next returns the next revision; w.mu is held. What is touched at it must be
// written down before w.mu is let go.
func (w *world) next() uint64 {
	w.revision++
	w.wake()
	return w.revision
}

// wake has all streams look again; w.mu is held.
func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Put creates or replaces entries, in one change; their revision is the caller's to
// raise.
func (w *world) Put(entries ...registration.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rev := w.next()
	for _, e := range entries {
		w.entries[e.ID], w.touchedEntries[e.ID] = e, rev
	}
}

// Delete removes an entry.
func (w *world) Delete(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, id)
	w.touchedEntries[id] = w.next()
}

// AddAuthority adds a new authority to the bundle, and returns it.
func (s *Server) AddAuthority() *testca.CA {
	s.mu.Lock()
	defer s.mu.Unlock()
	ca := testca.New(s.t, s.CA.TrustDomain.Name())
	s.bundle = s.bundle.Clone()
	s.bundle.AddX509Authority(ca.Cert)
	s.touchOwn()
	return ca
}

// SignWith has SVIDs signed by ca from now, whose authority need not be in the
// bundle.
func (w *world) SignWith(ca *testca.CA) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signer = ca
}

// Taint makes exactly these authorities tainted.
func (s *Server) Taint(certs ...*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tainted = certs
	s.touchOwn()
}

// touchOwn says that the own bundle has changed; s.mu is held.
func (s *Server) touchOwn() {
	s.sequence++
	s.touchedBundles[s.CA.TrustDomain] = s.next()
}

// Federate makes a bundle of another trust domain known.
func (w *world) Federate(b *x509bundle.Bundle) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.federated[b.TrustDomain()] = b
	w.touchedBundles[b.TrustDomain()] = w.next()
}

// Unfederate forgets the bundle of another trust domain.
func (w *world) Unfederate(td spiffeid.TrustDomain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.federated, td)
	w.touchedBundles[td] = w.next()
}

// SetJWTKeys puts exactly these keys into the bundle of td, its own or that of
// another.
func (w *world) SetJWTKeys(td spiffeid.TrustDomain, keys ...*types.JWTKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jwt.keys == nil {
		w.jwt.keys = make(map[spiffeid.TrustDomain][]*types.JWTKey)
	}
	w.jwt.keys[td] = keys
	w.touchedBundles[td] = w.next()
}
