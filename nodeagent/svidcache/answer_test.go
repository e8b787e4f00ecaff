package svidcache

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestSignsAnewOnlyWhenTheCertificateChanges(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		sub := w.Subscribe(caller("unix:uid:a", "unix:gid:1"))
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
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		w.issuer.set(func(s *issuer) { s.hold = make(chan struct{}) })
		w.give(entry("a", func(e *registration.Entry) { e.SPIFFEID = spiffeid.RequireFromString("spiffe://example.org/new") }))
		// The old SVID is served to nobody, though the new one is not there.
		late := w.Subscribe(caller("unix:uid:a"))
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
		sub := w.Subscribe(caller("unix:uid:a"))
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
		sub := w.Subscribe(caller("unix:uid:1"))
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
		sub := w.Subscribe(caller("unix:uid:1"))
		defer sub.Close()
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b", "/d", "/e"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestOneAnswerForAllOfTheSameIdentities(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		one := w.Subscribe(caller("unix:uid:a", "unix:gid:1"))
		defer one.Close()
		two := w.Subscribe(caller("unix:uid:a", "unix:gid:2"))
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
		svids := w.Subscribe(caller("unix:uid:a"))
		defer svids.Close()
		bundles := w.SubscribeBundles(caller("unix:uid:a"))
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
		sub := w.SubscribeBundles(caller("unix:uid:a"))
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

func TestReselect(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"), entry("b"))
		sub := w.Subscribe(caller("unix:uid:a"))
		defer sub.Close()
		answer(t, sub)
		if sub.Reselect(caller("unix:uid:a")) {
			t.Error("the same selectors are others")
		}
		if !sub.Reselect(caller("unix:uid:b")) {
			t.Error("other selectors are the same")
		}
		if got := ids(answer(t, sub)); !slices.Equal(got, []string{"/b"}) {
			t.Errorf("got %v", got)
		}
	})
}
