package svidcache

import (
	"crypto/x509"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// TestTaintedAuthority replaces what hangs from it in batches, those in use first,
// which serve meanwhile; nothing else is signed anew.
func TestTaintedAuthority(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		var entries []registration.Entry
		for i := range 250 {
			entries = append(entries, entry(fmt.Sprintf("e%03d", i)))
		}
		w.give(entries...)
		old, next := w.issuer.ca, testca.New(t, "example.org", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)))
		sub := w.Subscribe(caller("unix:uid:e249"))
		defer sub.Close()
		was := answer(t, sub)

		// One SVID is of the next authority already.
		w.issuer.set(func(s *issuer) { s.ca = next })
		w.give(append([]registration.Entry{entry("new")}, entries...)...)
		w.issuer.set(func(s *issuer) { s.calls = nil })
		bundle := w.state.Bundle.Clone()
		bundle.AddX509Authority(next.Cert)
		w.state.Bundle, w.state.Tainted = bundle, []*x509.Certificate{old.Cert}
		w.Apply(w.state)
		synctest.Wait()
		if n := w.issuer.asked(); n != taintBatch || w.issuer.signed("e249") != 1 {
			t.Errorf("%d signed at once, %d of them in use", n, w.issuer.signed("e249"))
		}
		late := w.Subscribe(caller("unix:uid:e248"))
		answer(t, late) // not there yet: the old one serves
		late.Close()
		time.Sleep(3 * taintEvery)
		synctest.Wait()
		if n := w.issuer.asked(); n != 250 || w.issuer.signed("new") != 0 {
			t.Errorf("%d signed, %d of them of the other authority", n, w.issuer.signed("new"))
		}
		now := answer(t, sub)
		for now.X509Context().SVIDs[0].Certificates[0].Equal(was.X509Context().SVIDs[0].Certificates[0]) {
			now = answer(t, sub) // the bundle came first
		}
		if err := now.X509Context().SVIDs[0].Certificates[0].CheckSignatureFrom(next.Cert); err != nil {
			t.Error(err)
		}
		// The same news again is none.
		w.Apply(w.state)
		time.Sleep(time.Minute)
		if n := w.issuer.asked(); n != 250 {
			t.Errorf("%d signed in the end", n)
		}
	})
}

// asked counts the SVIDs asked for.
func (s *issuer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		n += len(c.ids)
	}
	return n
}

// An authority of the same key ID that signed nothing is no reason to sign anew.
func TestTaintGoesBySignature(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		other := testca.New(t, "example.org", func(c *x509.Certificate) { c.SubjectKeyId = w.issuer.ca.Cert.SubjectKeyId })
		w.state.Tainted = []*x509.Certificate{other.Cert}
		w.Apply(w.state)
		time.Sleep(time.Minute)
		if n := w.issuer.signed("a"); n != 1 {
			t.Errorf("signed %d times", n)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.records["a"].live.suspect {
			t.Error("still suspect")
		}
	})
}

// An issuer that has not heard of it yet is asked again, and not without end.
func TestIssuerThatStillSignsWithATaintedAuthority(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		w.state.Tainted = []*x509.Certificate{w.issuer.ca.Cert}
		w.Apply(w.state)
		time.Sleep(10 * taintRetry)
		if n := w.issuer.signed("a"); n < 5 || n > 15 {
			t.Errorf("signed %d times in %s", n, 10*taintRetry)
		}
		next := testca.New(t, "example.org", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)))
		w.issuer.set(func(s *issuer) { s.ca, s.calls = next, nil })
		time.Sleep(10 * taintRetry)
		if n := w.issuer.signed("a"); n != 1 {
			t.Errorf("signed %d times with the next authority", n)
		}
	})
}
