package svidcache

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
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
	now := time.Now()
	cert := s.ca.Sign(s.t, id.String(), csr.PublicKey, testca.Lifetime(now.Add(-10*time.Second), now.Add(s.ttl)))
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
	state  upstream.State
}

// inWorld runs test with a cache in a bubble of its own clock.
func inWorld(t *testing.T, cfg Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, "example.org", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)))
		signer := &issuer{t: t, ca: ca, ttl: time.Hour, entries: make(map[string]registration.Entry)}
		cfg.TrustDomain, cfg.Signer = ca.TrustDomain, signer
		w := &world{Cache: New(cfg), t: t, issuer: signer, state: upstream.State{Bundle: ca.Bundle()}}
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

func TestRotatesAtHalfLife(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.ttl = 10 * time.Second
		w.give(entry("a"))
		sub := w.Subscribe(selectors("unix:uid:a"))
		defer sub.Close()
		last := answer(t, sub)
		at := time.Now()
		for range 20 {
			next := answer(t, sub)
			// Certificates end at whole seconds: up to one is cut off the life.
			if gap := time.Since(at); gap < 4200*time.Millisecond || gap > 5250*time.Millisecond {
				t.Errorf("rotated after %s", gap)
			}
			if time.Until(next.expires) < 9*time.Second {
				t.Errorf("pushed with %s left", time.Until(next.expires))
			}
			if last.X509Context().SVIDs[0].PrivateKey == next.X509Context().SVIDs[0].PrivateKey {
				t.Error("the key was not rotated")
			}
			last, at = next, time.Now()
		}
		if n := w.issuer.signed("a"); n != 21 {
			t.Errorf("signed %d times, want 21", n)
		}
	})
}

func TestRotationIsSpread(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		var entries []registration.Entry
		for i := range 400 {
			entries = append(entries, entry(fmt.Sprintf("e%03d", i)))
		}
		w.give(entries...)
		start := time.Now()
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		perSecond := make(map[int]int)
		total := 0
		w.issuer.set(func(s *issuer) {
			for _, c := range s.calls[1:] {
				perSecond[int(c.at.Sub(start).Seconds())] += len(c.ids)
				total += len(c.ids)
			}
		})
		if total != 400 {
			t.Errorf("rotated %d, want 400", total)
		}
		for second, n := range perSecond {
			if n > 20 || second < 1700 || second > 1900 {
				t.Errorf("%d rotations in second %d", n, second)
			}
		}
	})
}

func TestKeepsServingWhileTheIssuerIsAway(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.ttl = 10 * time.Minute
		w.give(entry("a"))
		sub := w.Subscribe(selectors("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.down = errors.New("away"); s.calls = nil })
		silent(t, sub, 9*time.Minute)
		late := w.Subscribe(selectors("unix:uid:a"))
		answer(t, late) // the last good one
		late.Close()
		if n := w.issuer.signed("a"); n < 5 || n > 60 {
			t.Errorf("tried %d times in 4 minutes", n)
		}
		// Expired: never served again, and the open stream waits on.
		silent(t, sub, 5*time.Minute)
		late = w.Subscribe(selectors("unix:uid:a"))
		if _, err := late.Answer(t.Context()); !errors.Is(err, ErrPending) {
			t.Errorf("after expiry: %v, want %v", err, ErrPending)
		}
		late.Close()
		// Back: what waits is asked for at the next sync, not at the next retry.
		w.issuer.set(func(s *issuer) { s.down = nil })
		w.Apply(w.state)
		before := time.Now()
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("recovered %s after the issuer", waited)
		}
	})
}

func TestPrefetchAndOnDemand(t *testing.T) {
	inWorld(t, Config{MaxSize: 3}, func(t *testing.T, w *world) {
		w.give(entry("a", func(e *registration.Entry) { e.DisableX509SVIDPrefetch = true }),
			entry("b"), entry("c"), entry("d"), entry("e"))
		for id, want := range map[string]int{"a": 0, "b": 1, "c": 1, "d": 1, "e": 0} {
			if n := w.issuer.signed(id); n != want {
				t.Errorf("%s signed %d times, want %d", id, n, want)
			}
		}
		before := time.Now()
		sub := w.Subscribe(selectors("unix:uid:e"))
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("waited %s for an SVID on demand", waited)
		}
		// One too many now: one that was never used goes, not this one.
		sub.Close()
		if n := len(w.active); n != 3 {
			t.Errorf("%d SVIDs are kept, want 3", n)
		}
		again := w.Subscribe(selectors("unix:uid:e"))
		defer again.Close()
		answer(t, again)
		if n := w.issuer.signed("e"); n != 1 {
			t.Errorf("signed %d times", n)
		}
	})
}

func TestDemandIsNotBehindPrefetch(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.issuer.hold, w.issuer.free = make(chan struct{}), "z"
		var entries []registration.Entry
		for i := range 900 {
			entries = append(entries, entry(fmt.Sprintf("e%03d", i)))
		}
		w.give(entries...)
		w.give(append(entries, entry("z"))...)
		before := time.Now()
		sub := w.Subscribe(selectors("unix:uid:z"))
		defer sub.Close()
		answer(t, sub)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("waited %s behind the prefetch", waited)
		}
		close(w.issuer.hold)
	})
}

func TestSignsAnewOnlyWhenTheCertificateChanges(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		sub := w.Subscribe(selectors("unix:uid:a", "unix:gid:1"))
		defer sub.Close()
		first := answer(t, sub)

		w.give(entry("a", func(e *registration.Entry) { e.Revision = 7; e.DisableX509SVIDPrefetch = true }))
		silent(t, sub, time.Minute)
		w.give(entry("a", func(e *registration.Entry) { e.Hint = "h" }))
		hinted := answer(t, sub)
		if got := hinted.X509Context().SVIDs[0]; got.Hint != "h" || got.Certificates[0] != first.X509Context().SVIDs[0].Certificates[0] {
			t.Errorf("after a new hint: hint %q", got.Hint)
		}
		if n := w.issuer.signed("a"); n != 1 {
			t.Errorf("signed %d times before the certificate changed", n)
		}
		w.give(entry("a", func(e *registration.Entry) { e.Hint, e.DNSNames = "h", []string{"a.test"} }))
		answer(t, sub)
		if n := w.issuer.signed("a"); n != 2 {
			t.Errorf("signed %d times after a new DNS name, want 2", n)
		}
	})
}

func TestAnotherSPIFFEIDIsAnotherIdentity(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		sub := w.Subscribe(selectors("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
		w.give(entry("a", func(e *registration.Entry) { e.SPIFFEID = spiffeid.RequireFromString("spiffe://example.org/new") }))
		// The old SVID is served to nobody, though the new one is not there.
		late := w.Subscribe(selectors("unix:uid:a"))
		if a, err := late.Answer(t.Context()); !errors.Is(err, ErrPending) {
			t.Errorf("got %v, %v", ids(a), err)
		}
		late.Close()
		w.issuer.set(func(s *issuer) { close(s.hold); s.hold = nil })
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/new"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestAnswersFollowTheEntries(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		sub := w.Subscribe(selectors("unix:uid:a"))
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNotSynced) {
			t.Errorf("before the first sync: %v", err)
		}
		w.give(entry("x"))
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("no entry matches: %v", err)
		}
		also := func(e *registration.Entry) { e.Selectors = selectors("unix:uid:a") }
		w.give(entry("x"), entry("b", also))
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b"}) {
			t.Errorf("got %v", got)
		}
		w.give(entry("x"), entry("b", also), entry("a", also))
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/a", "/b"}) {
			t.Errorf("got %v", got)
		}
		w.give(entry("x"), entry("b", also), entry("a", also, func(e *registration.Entry) { e.StoreSVID = true }))
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b"}) {
			t.Errorf("got %v", got)
		}
		w.give(entry("x"))
		if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("the entry went: %v", err)
		}
		sub.Close()
		if len(w.groups)+len(w.sets) > 0 {
			t.Errorf("%d groups and %d sets are left", len(w.groups), len(w.sets))
		}
	})
}

func TestNewIdentityWaitsForItsSVID(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		also := func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") }
		w.give(entry("b", also))
		sub := w.Subscribe(selectors("unix:uid:1"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
		w.give(entry("a", also), entry("b", also))
		silent(t, sub, time.Minute) // not half an answer
		w.issuer.set(func(s *issuer) { close(s.hold); s.hold = nil })
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/a", "/b"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestHintsAreUnique(t *testing.T) {
	hinted := func(created int64) func(*registration.Entry) {
		return func(e *registration.Entry) {
			e.Selectors, e.Hint, e.CreatedAt = selectors("unix:uid:1"), "h", time.Unix(created, 0)
		}
	}
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a", hinted(20)), entry("b", hinted(10)), entry("c", hinted(10)),
			entry("d", func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") }),
			entry("e", func(e *registration.Entry) { e.Selectors = selectors("unix:uid:1") }))
		sub := w.Subscribe(selectors("unix:uid:1"))
		defer sub.Close()
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b", "/d", "/e"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestOneAnswerForAllOfTheSameIdentities(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		one := w.Subscribe(selectors("unix:uid:a", "unix:gid:1"))
		defer one.Close()
		two := w.Subscribe(selectors("unix:uid:a", "unix:gid:2"))
		defer two.Close()
		a, b := answer(t, one), answer(t, two)
		if a != b {
			t.Error("two answers for one set of identities")
		}
		x, _ := a.X509SVIDResponse()
		y, _ := b.X509SVIDResponse()
		if &x[0] != &y[0] || a.X509Context() != b.X509Context() {
			t.Error("encoded twice")
		}
	})
}

func TestBundlesArePushed(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		other := testca.New(t, "other.org")
		federated := func(e *registration.Entry) { e.FederatesWith = []spiffeid.TrustDomain{other.TrustDomain} }
		w.give(entry("a", federated))
		svids := w.Subscribe(selectors("unix:uid:a"))
		defer svids.Close()
		bundles := w.SubscribeBundles(selectors("unix:uid:a"))
		defer bundles.Close()
		domains := func() (int, int) {
			b, err := bundles.Bundles(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(answer(t, svids).X509Context().Bundles), len(b.parsed)
		}
		if n, m := domains(); n != 1 || m != 1 {
			t.Errorf("bundle of an unknown domain: %d, %d", n, m)
		}
		w.state.Federated = map[spiffeid.TrustDomain]*x509bundle.Bundle{other.TrustDomain: other.Bundle()}
		w.Apply(w.state)
		if n, m := domains(); n != 2 || m != 2 {
			t.Errorf("federated bundle not pushed: %d, %d", n, m)
		}
		next := w.state.Bundle.Clone()
		next.AddX509Authority(testca.New(t, "example.org").Cert)
		w.state.Bundle = next
		w.Apply(w.state)
		domains()
		// An equal bundle is no news; a rotated SVID is none to the bundles.
		w.state.Bundle = next.Clone()
		w.Apply(w.state)
		silent(t, svids, time.Second)
		answer(t, svids)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := bundles.Bundles(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("bundles pushed without a change: %v", err)
		}
	})
}

func TestBundlesNeedNoSVID(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a", func(e *registration.Entry) { e.DisableX509SVIDPrefetch = true }))
		sub := w.SubscribeBundles(selectors("unix:uid:a"))
		defer sub.Close()
		if _, err := sub.Bundles(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := w.issuer.signed("a"); n != 0 {
			t.Errorf("signed %d times", n)
		}
	})
}

func TestWrongAnswersOfTheIssuerAreNotServed(t *testing.T) {
	for name, spoil := range map[string]func(*issuer){
		"another ID":      func(s *issuer) { s.otherID = spiffeid.RequireFromString("spiffe://example.org/other") },
		"another domain":  func(s *issuer) { s.otherID = spiffeid.RequireFromString("spiffe://other.org/a") },
		"already expired": func(s *issuer) { s.ttl = -time.Second },
		"away":            func(s *issuer) { s.down = errors.New("away") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				w.issuer.set(spoil)
				w.give(entry("a"))
				sub := w.Subscribe(selectors("unix:uid:a"))
				defer sub.Close()
				start := time.Now()
				if a, err := sub.Answer(t.Context()); !errors.Is(err, ErrPending) {
					t.Errorf("got %v, %v", ids(a), err)
				}
				if waited := time.Since(start); waited != patience {
					t.Errorf("waited %s", waited)
				}
				if n := w.issuer.signed("a"); n < 3 || n > 8 {
					t.Errorf("tried %d times in 5 s", n)
				}
			})
		})
	}
}

func TestReselect(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"), entry("b"))
		sub := w.Subscribe(selectors("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		if sub.Reselect(selectors("unix:uid:a")) {
			t.Error("the same selectors are others")
		}
		if !sub.Reselect(selectors("unix:uid:b")) {
			t.Error("other selectors are the same")
		}
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b"}) {
			t.Errorf("got %v", got)
		}
	})
}
