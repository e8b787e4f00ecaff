package upstream

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// identity is the agent's own key, SVID and bundle, in memory as on disk: each
// change is written before it is used. It is safe for concurrent use.
type identity struct {
	dir string
	td  spiffeid.TrustDomain

	mu       sync.Mutex // guards what follows, and the files
	data     data
	keys     keys
	svid     *x509svid.SVID // of data.SVID and its key; nil: has not joined
	bundle   *x509bundle.Bundle
	previous *x509svid.SVID // until the issuer has taken svid once
	renewAt  time.Time
	pending  string // slot of a renewal under way
}

// openIdentity reads the state files in dir, and removes what an agent that was
// killed left of writing them.
func openIdentity(dir string, td spiffeid.TrustDomain) (*identity, error) {
	for _, name := range []string{dataFile, keysFile} {
		if err := durable.Sweep(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	d, err := load(dir, dataFile, decodeData)
	if err != nil {
		return nil, err
	}
	ks, err := load(dir, keysFile, decodeKeys)
	if err != nil {
		return nil, err
	}
	if ks == nil {
		ks = make(keys)
	}
	id := &identity{dir: dir, td: td, data: d, keys: ks, bundle: newBundle(td, d.Bundle)}
	if len(d.SVID) == 0 {
		return id, nil
	}
	if id.svid, err = agentSVID(td, d.SVID, ks); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, dataFile), err)
	}
	// When it was received is not known: as if it was at once.
	leaf := d.SVID[0]
	id.renewAt = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
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

// reattestable reports whether the issuer wants the agent to attest again
// instead of renewing.
func (id *identity) reattestable() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.data.Reattestable
}

// joinKey returns the key to join with. Once made it is on disk, and stays the
// same until the agent has joined: an issuer that spent the token and whose
// answer was lost knows the agent again by it.
func (id *identity) joinKey() (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.svid != nil {
		return id.svid.PrivateKey, nil
	}
	for _, slot := range []string{slotA, slotB} {
		if key := id.keys[slot]; key != nil {
			return key, nil
		}
	}
	return id.newKey(slotA)
}

// renewalKey returns a new key, on disk, for the SVID after the one in use; the
// same until [identity.setSVID], for an answer may be lost here too.
func (id *identity) renewalKey() (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.pending != "" {
		return id.keys[id.pending], nil
	}
	// The new key takes the slot of the one before the last, if that is still
	// there: no going back to it any more.
	id.previous = nil
	slot := slotA
	if id.keys.slotOf(id.svid.Certificates[0].PublicKey) == slotA {
		slot = slotB
	}
	key, err := id.newKey(slot)
	if err == nil {
		id.pending = slot
	}
	return key, err
}

// newKey makes a P-256 key and writes it to disk; id.mu is held.
func (id *identity) newKey(slot string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	next := maps.Clone(id.keys)
	next[slot] = key
	if err := save(id.dir, keysFile, next); err != nil {
		return nil, err
	}
	id.keys = next
	return key, nil
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
	if err := save(id.dir, dataFile, next); err != nil {
		return err
	}
	id.data, id.previous, id.svid, id.pending = next, id.svid, svid, ""
	// Spread, so that agents which started together do not renew together.
	id.renewAt = now.Round(0).Add(jitter(halfLife(chain[0], now).Sub(now.Round(0))))
	return nil
}

// halfLife returns when half of what is left of cert at now is over.
func halfLife(cert *x509.Certificate, now time.Time) time.Time {
	from := now.Round(0) // certificates know wall-clock time only
	if cert.NotBefore.After(from) {
		from = cert.NotBefore
	}
	return from.Add(cert.NotAfter.Sub(from) / 2)
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
	if err := save(id.dir, keysFile, next); err != nil {
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
	if err := save(id.dir, dataFile, next); err != nil {
		return false, err
	}
	id.data, id.svid, id.previous, id.renewAt = next, id.previous, nil, now
	return true, nil
}

// setBundle keeps the authorities of the trust domain.
func (id *identity) setBundle(certs []*x509.Certificate) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if slices.EqualFunc(certs, id.data.Bundle, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }) {
		return nil
	}
	next := id.data
	next.Bundle = certs
	if err := save(id.dir, dataFile, next); err != nil {
		return err
	}
	id.data, id.bundle = next, newBundle(id.td, certs)
	return nil
}

// forget deletes SVID and keys, on disk too. The bundle stays.
func (id *identity) forget() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	next.SVID, next.Reattestable = nil, false
	if err := save(id.dir, dataFile, next); err != nil {
		return err
	}
	if err := save(id.dir, keysFile, keys{}); err != nil {
		return err
	}
	id.data, id.keys = next, make(keys)
	id.svid, id.previous, id.pending = nil, nil, ""
	return nil
}
