package ca_test

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var (
	td    = spiffeid.RequireTrustDomainFromString("lanyard.test")
	epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
)

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Set(sinceEpoch time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = epoch.Add(sinceEpoch)
}

// site is what outlives an issuer: its disk. Authorities on it are restarted
// with start.
type site struct {
	t     *testing.T
	dir   string
	store *store.Store
	clock *clock
	// fail breaks the journal: before the write, or after it with the reply lost.
	fail struct{ before, after bool }
}

var errBroken = errors.New("journal is broken for the test")

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{t: t, dir: dir, store: s, clock: &clock{now: epoch}}
}

func (s *site) keyFile() string { return filepath.Join(s.dir, "keys", "keys.json") }

// UpdateCA implements ca.Journal. Only writes are broken, not looking.
func (s *site) UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error) {
	var writes bool
	rev, err := s.store.UpdateCA(ctx, func(c *store.CAState) error {
		was := fingerprint(c)
		err := change(c)
		writes = fingerprint(c) != was
		if writes && s.fail.before {
			return errBroken
		}
		return err
	})
	if writes && s.fail.after {
		return 0, errBroken
	}
	return rev, err
}

func fingerprint(c *store.CAState) string {
	return fmt.Sprint(c.Bundle, c.Authorities, c.JWTAuthorities, c.Revoked)
}

// open starts an issuer's authority on the site, without loading it.
func (s *site) open() *ca.Authority {
	s.t.Helper()
	keys, err := ca.OpenKeys(s.keyFile())
	if err != nil {
		s.t.Fatal(err)
	}
	return ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: s, Now: s.clock.Now})
}

func (s *site) start() *ca.Authority {
	s.t.Helper()
	a := s.open()
	s.advance(a)
	return a
}

// advance does what Run does when its timer fires.
func (s *site) advance(a *ca.Authority) {
	s.t.Helper()
	if err := a.Load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) state() store.CAState {
	s.t.Helper()
	var state store.CAState
	_, err := s.store.UpdateCA(s.t.Context(), func(c *store.CAState) error {
		state = *c
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

// bundle returns the published authorities by hex of their key id.
func (s *site) bundle() map[string]*x509.Certificate {
	s.t.Helper()
	certs := map[string]*x509.Certificate{}
	for _, authority := range s.state().Bundle.X509Authorities {
		cert, err := x509.ParseCertificate(authority.Asn1)
		if err != nil {
			s.t.Fatal(err)
		}
		certs[string(cert.SubjectKeyId)] = cert
	}
	return certs
}

// statuses counts the records of the journal by status.
func (s *site) statuses() map[storepb.X509Authority_Status]int {
	s.t.Helper()
	n := map[storepb.X509Authority_Status]int{}
	for _, a := range s.state().Authorities {
		n[a.Status]++
	}
	return n
}

func hexOf(id []byte) string { return hex.EncodeToString(id) }

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func unhex(t testing.TB, id string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
