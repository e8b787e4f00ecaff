package upstream

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// identity is the agent's own key, SVID and bundle, in memory as on disk: a new key
// or SVID is written before it is used. It is safe for concurrent use.
type identity struct {
	dir string
	td  spiffeid.TrustDomain
	opt identityOptions
	// wake asks who renews to look again; it holds one.
	wake chan struct{}

	mu       sync.Mutex // guards what follows, and the files
	data     data
	keys     keys
	svid     *x509svid.SVID // of data.SVID and its key; nil: has not joined
	received time.Time      // when svid came; zero: before the agent started
	bundle   *x509bundle.Bundle
	unsaved  bool           // bundle is newer than the file
	previous *x509svid.SVID // until the issuer has taken svid once
	renewAt  time.Time
	pending  string // slot of a renewal under way
	tainted  []*x509.Certificate
	again    growing // wait before an SVID that is tainted from the start is renewed
}

type identityOptions struct {
	memory bool          // keys and SVID are not on disk
	target time.Duration // [Config].AvailabilityTarget
	// spread is how long agents spread a renewal over that they all find due at
	// the same moment.
	spread time.Duration
}

// openIdentity reads the state files in dir, and removes what an agent that was
// killed left of writing them.
func openIdentity(dir string, td spiffeid.TrustDomain, opt identityOptions) (*identity, error) {
	for _, name := range []string{dataFile, keysFile} {
		if err := durable.Sweep(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	d, err := load(dir, dataFile, decodeData)
	if err != nil {
		return nil, err
	}
	id := &identity{
		dir: dir, td: td, opt: opt, wake: make(chan struct{}, 1),
		data: d, keys: make(keys), bundle: newBundle(td, d.Bundle),
		again: growing{first: 2 * opt.spread, most: max(10*time.Minute, opt.spread)},
	}
	if opt.memory {
		// What is there is another run's, and of no use without its key.
		id.data.SVID, id.data.Reattestable = nil, false
		return id, nil
	}
	ks, err := load(dir, keysFile, decodeKeys)
	if err != nil {
		return nil, err
	}
	if ks != nil {
		id.keys = ks
	}
	if len(d.SVID) == 0 {
		return id, nil
	}
	if id.svid, err = agentSVID(td, d.SVID, id.keys); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, dataFile), err)
	}
	// When it was received is not known: as if it was at once.
	id.renewAt = dueTime(d.SVID[0], d.SVID[0].NotBefore, opt.target)
	return id, nil
}

// agentSVID checks that chain is an SVID of an agent of td with one of keys.
func agentSVID(td spiffeid.TrustDomain, chain []*x509.Certificate, ks keys) (*x509svid.SVID, error) {
	id, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, fmt.Errorf("agent SVID: %w", err)
	}
	if !id.MemberOf(td) {
		return nil, fmt.Errorf("the agent SVID there is %s, of another trust domain than %q: use another data_dir for each trust domain", id, td.Name())
	}
	slot := ks.slotOf(chain[0].PublicKey)
	if slot == "" {
		return nil, fmt.Errorf("the agent SVID there has no key in %s: restore that file, or remove both and join with a new token", keysFile)
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: ks[slot]}, nil
}

// newBundle returns nil for no certificates.
func newBundle(td spiffeid.TrustDomain, certs []*x509.Certificate) *x509bundle.Bundle {
	if len(certs) == 0 {
		return nil
	}
	return x509bundle.FromX509Authorities(td, certs)
}

// current returns the SVID in use and the bundle; both may be nil.
func (id *identity) current() (*x509svid.SVID, *x509bundle.Bundle) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.svid, id.bundle
}

func (id *identity) renewal() time.Time {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.renewAt
}

// fresh reports whether the SVID in use was received within d.
func (id *identity) fresh(d time.Duration) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return !id.received.IsZero() && time.Since(id.received) < d
}

// reattestable reports whether the issuer wants the agent to attest again
// instead of renewing.
func (id *identity) reattestable() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.data.Reattestable
}

// setSVID takes an SVID that the issuer sent just now. The one before remains
// known until [identity.confirm].
func (id *identity) setSVID(chain []*x509.Certificate, reattestable bool, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	svid, err := agentSVID(id.td, chain, id.keys)
	if err != nil {
		return fmt.Errorf("issuer's answer: %w", err)
	}
	next := id.data
	next.SVID, next.Reattestable = chain, reattestable
	if err := id.saveData(next); err != nil {
		return err
	}
	id.data, id.previous = next, id.svid
	id.use(svid, now)
	return nil
}

// replace takes an SVID and a bundle that owe nothing to those before, which are
// gone for good.
func (id *identity) replace(chain []*x509.Certificate, reattestable bool, bundle []*x509.Certificate, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	svid, err := agentSVID(id.td, chain, id.keys)
	if err != nil {
		return fmt.Errorf("issuer's answer: %w", err)
	}
	next := id.data
	next.SVID, next.Reattestable, next.Bundle = chain, reattestable, bundle
	if err := id.saveData(next); err != nil {
		return err
	}
	id.data, id.previous, id.tainted, id.unsaved = next, nil, nil, false
	id.bundle = newBundle(id.td, bundle)
	id.use(svid, now)
	return nil
}

// use has svid be in use and says when it is renewed; id.mu is held.
func (id *identity) use(svid *x509svid.SVID, now time.Time) {
	id.svid, id.pending, id.received = svid, "", now
	id.renewAt = renewalTime(svid.Certificates[0], now, id.opt.target)
	if !hangsFrom(svid.Certificates, id.tainted) {
		id.again.reset()
		return
	}
	// The issuer that signed it has not heard yet, or has no other authority.
	if soon := now.Round(0).Add(jitter(id.again.next())); soon.Before(id.renewAt) {
		id.renewAt = soon
	}
}

// confirm says that the issuer has taken svid: the key before it is of no use.
func (id *identity) confirm(svid *x509svid.SVID) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.previous == nil || svid != id.svid {
		return nil
	}
	id.previous = nil
	next := maps.Clone(id.keys)
	slot := next.slotOf(svid.Certificates[0].PublicKey)
	maps.DeleteFunc(next, func(s string, _ crypto.Signer) bool { return s != slot && s != id.pending })
	if err := id.saveKeys(next); err != nil {
		return err
	}
	id.keys = next
	return nil
}

// revert goes back to the SVID before svid, which the issuer does not know. It
// is false if there is none that could still be good.
func (id *identity) revert(svid *x509svid.SVID, now time.Time) (bool, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if svid != id.svid || id.previous == nil || !now.Before(id.previous.Certificates[0].NotAfter) {
		return false, nil
	}
	next := id.data
	next.SVID = id.previous.Certificates
	if err := id.saveData(next); err != nil {
		return false, err
	}
	id.data, id.svid, id.previous, id.renewAt = next, id.previous, nil, now
	return true, nil
}

// forget deletes SVID and keys, on disk too. The bundle stays.
func (id *identity) forget() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	next.SVID, next.Reattestable = nil, false
	if err := id.saveData(next); err != nil {
		return err
	}
	if err := id.saveKeys(keys{}); err != nil {
		return err
	}
	id.data, id.keys = next, make(keys)
	id.svid, id.previous, id.pending = nil, nil, ""
	return nil
}
