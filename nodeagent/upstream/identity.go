package upstream

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// identity is the agent's own key, SVID and bundle, in memory as on disk: a new key
// or SVID is written before it is used, for as long as it can wait for that. It is
// safe for concurrent use.
type identity struct {
	td  spiffeid.TrustDomain
	opt identityOptions
	// wake asks who renews to look again; it holds one.
	wake chan struct{}

	mu       sync.Mutex // guards what follows, and the files
	files    *files
	data     data
	keys     keys           // never changed, but replaced
	svid     *x509svid.SVID // of data.SVID and its key; nil: has not joined
	received time.Time      // when svid came; zero: before the agent started
	bundle   *x509bundle.Bundle
	homeless bool           // svid is not on disk, which was told
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
	// the same moment: an interval of polls.
	spread time.Duration
	log    *slog.Logger // nil: none
}

// openIdentity reads the state files in dir.
func openIdentity(dir string, td spiffeid.TrustDomain, opt identityOptions) (*identity, error) {
	if opt.log == nil {
		opt.log = slog.New(slog.DiscardHandler)
	}
	f, err := openFiles(dir, opt.memory)
	if err != nil {
		return nil, err
	}
	d := f.data
	id := &identity{
		td: td, opt: opt, wake: make(chan struct{}, 1),
		files: f, data: d, keys: f.keys, bundle: newBundle(td, d.Bundle),
		again: growing{first: 2 * opt.spread, most: max(10*time.Minute, opt.spread)},
	}
	if opt.memory {
		// What is there is another run's, and of no use without its key.
		id.data = d.withoutSVID()
	}
	if id.keys == nil {
		id.keys = make(keys)
	}
	if len(id.data.SVID) == 0 {
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

// setSVID takes an SVID that the issuer sent just now, by which those before it are
// good no more: it is used whether it can be written or not.
func (id *identity) setSVID(chain []*x509.Certificate, reattestable bool, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	next.SVID, next.Reattestable = chain, reattestable
	return id.take(next, false, now)
}

// renewSVID takes an SVID that the issuer sent just now for the one in use, which is
// good until [identity.confirm]. An error says that it remains in use, since the new
// one cannot be written and there is time still.
func (id *identity) renewSVID(chain []*x509.Certificate, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	next.SVID, next.Reattestable = chain, false
	return id.take(next, true, now)
}

// replace takes an SVID and a bundle that owe nothing to those before, which are
// gone for good.
func (id *identity) replace(chain []*x509.Certificate, reattestable bool, bundle []*x509.Certificate, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	next.SVID, next.Reattestable, next.Bundle = chain, reattestable, bundle
	if err := id.take(next, false, now); err != nil {
		return err
	}
	id.previous, id.tainted, id.bundle = nil, nil, newBundle(id.td, bundle)
	return nil
}

// take has the SVID of next be in use; the one before remains known. id.mu is held.
func (id *identity) take(next data, mayWait bool, now time.Time) error {
	svid, err := agentSVID(id.td, next.SVID, id.keys)
	if err != nil {
		return fmt.Errorf("issuer's answer: %w", err)
	}
	if err := id.files.write(next, id.keys); err != nil {
		if mayWait && id.canWait(now) {
			return err
		}
		defer func() { id.tell(err) }()
	}
	id.data, id.previous = next, id.svid
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

// confirm says that the issuer has taken svid: the key before it is of no use. An
// error says that it is on disk still, beside the one in use.
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
	id.keys = next
	if err := id.save(); err != nil && !id.homeless {
		return err
	}
	return nil
}

// revert goes back to the SVID before svid, which the issuer does not know. It
// is false if there is none that could still be good.
func (id *identity) revert(svid *x509svid.SVID, now time.Time) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if svid != id.svid || id.previous == nil || !now.Before(id.previous.Certificates[0].NotAfter) {
		return false
	}
	id.data.SVID = id.previous.Certificates
	id.svid, id.previous, id.renewAt = id.previous, nil, now
	_ = id.save() // which tells, and is tried again
	return true
}

// forget deletes SVID and keys, on disk too. The bundle stays. An error says that
// the files have them still, which can be neither written nor removed; they are
// forgotten nevertheless.
func (id *identity) forget() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.data, id.keys = id.data.withoutSVID(), make(keys)
	id.svid, id.previous, id.pending, id.homeless = nil, nil, "", false
	return id.files.forget(id.data)
}
