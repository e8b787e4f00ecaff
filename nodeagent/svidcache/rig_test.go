package svidcache

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// issuer is a Signer with a real CA and the clock of the test.
type issuer struct {
	t  *testing.T
	ca *testca.CA

	mu      sync.Mutex
	ttl     time.Duration
	down    error
	hold    chan struct{} // signing of entries other than free waits for it
	free    string
	entries map[string]registration.Entry
	otherID spiffeid.ID // signed instead of the entry's
	calls   []call
	// anyInstance signs what templates make, without being told of each.
	anyInstance bool
	now         func() time.Time
}

type call struct {
	at  time.Time
	ids []string
}

func (s *issuer) SignX509SVIDs(ctx context.Context, reqs []upstream.CSR) ([]upstream.Signed, error) {
	var c call
	held := false
	s.mu.Lock()
	for _, r := range reqs {
		c.ids = append(c.ids, r.EntryID)
		held = held || r.EntryID != s.free
	}
	c.at = time.Now()
	s.calls = append(s.calls, c)
	hold, down := s.hold, s.down
	s.mu.Unlock()
	if hold != nil && held {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if down != nil {
		return nil, down
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := make([]upstream.Signed, len(reqs))
	for i, r := range reqs {
		answers[i] = s.sign(r)
	}
	return answers, nil
}

func (s *issuer) sign(r upstream.CSR) upstream.Signed {
	e, ok := s.entries[r.EntryID]
	if name, path, instance := strings.Cut(r.EntryID, instanceMark); instance && !ok {
		if e, ok = s.entries[name]; ok && s.anyInstance {
			e.SPIFFEID, _ = e.Template.InstanceAt(path)
		} else {
			ok = false
		}
	}
	if !ok {
		return upstream.Signed{Err: errors.New("entry not found or not authorized")}
	}
	csr, err := x509.ParseCertificateRequest(r.DER)
	if err != nil {
		return upstream.Signed{Err: err}
	}
	id := e.SPIFFEID
	if !s.otherID.IsZero() {
		id = s.otherID
	}
	now := s.now()
	cert := s.ca.Sign(s.t, id.String(), csr.PublicKey, testca.Lifetime(now.Add(-10*time.Second), now.Add(s.ttl)), func(c *x509.Certificate) { c.DNSNames = e.DNSNames })
	return upstream.Signed{Chain: []*x509.Certificate{cert}}
}

func (s *issuer) set(change func(*issuer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// signed counts how often the entry was asked for.
func (s *issuer) signed(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if slices.Contains(c.ids, id) {
			n++
		}
	}
	return n
}

// world is a cache that runs, and its issuer.
type world struct {
	*Cache
	t      *testing.T
	issuer *issuer
	state  upstream.Update
}

// inWorld runs test with a cache in a bubble of its own clock.
func inWorld(t *testing.T, cfg Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, "example.org", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)))
		signer := &issuer{t: t, ca: ca, ttl: time.Hour, now: time.Now, entries: make(map[string]registration.Entry)}
		cfg.TrustDomain, cfg.Signer = ca.TrustDomain, signer
		w := &world{Cache: New(cfg), t: t, issuer: signer, state: upstream.Update{Whole: true, Bundle: ca.Bundle()}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		defer running.Wait()
		defer cancel()
		test(t, w)
	})
}

// give makes entries the state and waits until nothing moves.
func (w *world) give(entries ...registration.Entry) {
	w.t.Helper()
	slices.SortFunc(entries, func(a, b registration.Entry) int { return cmpString(a.ID, b.ID) })
	w.issuer.set(func(s *issuer) {
		s.entries = make(map[string]registration.Entry)
		for _, e := range entries {
			s.entries[e.ID] = e
		}
	})
	w.state.Entries = entries
	w.Apply(w.state)
	synctest.Wait()
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func entry(id string, change ...func(*registration.Entry)) registration.Entry {
	e := registration.Entry{
		ID:        id,
		SPIFFEID:  spiffeid.RequireFromString("spiffe://example.org/" + id),
		ParentID:  spiffeid.RequireFromString("spiffe://example.org/spire/agent/a"),
		Selectors: selectors("unix:uid:" + id),
		CreatedAt: time.Unix(1000, 0),
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func selectors(texts ...string) []registration.Selector {
	var sel []registration.Selector
	for _, text := range texts {
		s, err := registration.ParseSelector(text)
		if err != nil {
			panic(err)
		}
		sel = append(sel, s)
	}
	return sel
}

// answer waits for the next answer, at most for an hour of the bubble's time.
func answer(t *testing.T, sub *Subscription) *Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	a, err := sub.Answer(ctx)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return a
}

// silent fails if there is an answer to be had within d.
func silent(t *testing.T, sub *Subscription, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if a, err := sub.Answer(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got answer %v, error %v; want none", ids(a), err)
	}
}

func ids(a *Answer) []string {
	if a == nil {
		return nil
	}
	var out []string
	for _, s := range a.X509Context().SVIDs {
		out = append(out, s.ID.Path())
	}
	return out
}
