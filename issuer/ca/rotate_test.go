package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

const (
	active   = storepb.X509Authority_ACTIVE
	prepared = storepb.X509Authority_PREPARED
	old      = storepb.X509Authority_OLD
)

// sign returns a fresh leaf.
func sign(t *testing.T, a *ca.Authority) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.SignX509SVID(t.Context(), ca.Params{
		ID:        spiffeid.RequireFromString("spiffe://lanyard.test/web"),
		PublicKey: key.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}

// TestRotationTimeline lets five days pass, a step each 30 minutes, and holds at
// each of them what rotation promises.
func TestRotationTimeline(t *testing.T) {
	s := newSite(t)
	a := s.start()
	published := map[string]time.Duration{}
	signers := map[string]bool{}
	const step = 30 * time.Minute
	for at := time.Duration(0); at < 5*24*time.Hour; at += step {
		s.clock.Set(at)
		s.advance(a)
		leaf := sign(t, a)
		bundle := s.bundle()
		for id := range bundle {
			if _, ok := published[id]; !ok {
				published[id] = at
			}
		}
		signer := string(leaf.AuthorityKeyId)
		root := bundle[signer]
		if root == nil {
			t.Fatalf("at %s: the signer is not in the bundle", at)
		}
		if leaf.NotAfter.After(root.NotAfter) {
			t.Fatalf("at %s: SVID until %s outlives its signer, until %s", at, leaf.NotAfter, root.NotAfter)
		}
		if err := leaf.CheckSignatureFrom(root); err != nil {
			t.Fatalf("at %s: %v", at, err)
		}
		if leaf.NotAfter.Sub(s.clock.Now()) < time.Hour {
			t.Fatalf("at %s: SVID was cut short to %s", at, leaf.NotAfter.Sub(s.clock.Now()))
		}
		if !signers[signer] && len(signers) > 0 {
			if lead := at - published[signer]; lead < 8*time.Hour-step {
				t.Fatalf("at %s: the new authority signs %s after it was published", at, lead)
			}
		}
		signers[signer] = true
		own, err := a.SVID()
		if err != nil || !s.clock.Now().Before(own.Certificates[0].NotAfter) {
			t.Fatalf("at %s: the issuer's own SVID: %v, %v", at, own, err)
		}
		for _, cert := range bundle {
			if cert.NotAfter.Add(24*time.Hour + step).Before(s.clock.Now()) {
				t.Fatalf("at %s: the bundle still has an authority that expired at %s", at, cert.NotAfter)
			}
		}
	}
	// The first signs for 20 h, each after it for 12: from 8 to 20 h of its life.
	if len(signers) != 10 {
		t.Errorf("%d authorities signed in 5 days, want 10", len(signers))
	}
}

func TestRestartKeepsAuthority(t *testing.T) {
	s := newSite(t)
	first := sign(t, s.start())
	again := sign(t, s.start())
	if string(first.AuthorityKeyId) != string(again.AuthorityKeyId) {
		t.Error("another authority signs after a restart")
	}
	if n := len(s.bundle()); n != 1 {
		t.Errorf("bundle has %d authorities, want 1", n)
	}
}

// TestCrashPoints breaks the journal before or after the write of each step of
// rotation, restarts, and wants the rotation to end as if nothing had happened.
func TestCrashPoints(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   time.Duration
		want map[storepb.X509Authority_Status]int
	}{
		{"first authority", 0, map[storepb.X509Authority_Status]int{active: 1}},
		{"prepare", 13 * time.Hour, map[storepb.X509Authority_Status]int{active: 1, prepared: 1}},
		{"activate", 21 * time.Hour, map[storepb.X509Authority_Status]int{old: 1, active: 1}},
	} {
		for _, after := range []bool{false, true} {
			name := tt.name + ", before the write"
			if after {
				name = tt.name + ", reply lost"
			}
			t.Run(name, func(t *testing.T) {
				s := newSite(t)
				if tt.at > 0 {
					a := s.start()
					if tt.at > 20*time.Hour {
						s.clock.Set(13 * time.Hour)
						s.advance(a)
					}
				}
				s.clock.Set(tt.at)
				s.fail.before, s.fail.after = !after, after
				crashed := s.open()
				// With something to sign with, the issuer starts all the same.
				if err := crashed.Load(t.Context()); errors.Is(err, errBroken) != (tt.at == 0) {
					t.Fatalf("Load = %v", err)
				}
				s.fail.before, s.fail.after = false, false

				// Either the same process goes on, or a new one starts.
				s.advance(crashed)
				sign(t, crashed)
				leaf := sign(t, s.start())
				if s.bundle()[string(leaf.AuthorityKeyId)] == nil {
					t.Error("the signer is not in the bundle")
				}
				if diff := cmp.Diff(tt.want, s.statuses()); diff != "" {
					t.Errorf("journal (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestLostReplyKeepsKey restarts after a key and its record were written but
// the answer was lost: the key must not be made again.
func TestLostReplyKeepsKey(t *testing.T) {
	s := newSite(t)
	s.start()
	s.clock.Set(13 * time.Hour)
	s.fail.after = true
	a := s.open()
	s.advance(a)
	before, err := os.ReadFile(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	s.fail.after = false
	s.advance(a)
	after, err := os.ReadFile(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("the key of a recorded authority was overwritten")
	}
}

func TestExpiredWhileDown(t *testing.T) {
	s := newSite(t)
	a := s.start()
	first := sign(t, a)
	s.clock.Set(30 * 24 * time.Hour)
	leaf := sign(t, s.start())
	if string(leaf.AuthorityKeyId) == string(first.AuthorityKeyId) {
		t.Fatal("an expired authority signs")
	}
	// The one from before has expired long ago and is forgotten.
	if n := len(s.bundle()); n != 1 {
		t.Errorf("bundle has %d authorities, want 1", n)
	}
}

func TestExpiredAuthorityDoesNotSign(t *testing.T) {
	s := newSite(t)
	a := s.start()
	s.clock.Set(24 * time.Hour)
	_, err := a.SignX509SVID(t.Context(), ca.Params{
		ID:        spiffeid.RequireFromString("spiffe://lanyard.test/web"),
		PublicKey: newKey(t).Public(),
	})
	if !errors.Is(err, ca.ErrNotReady) || !strings.Contains(err.Error(), "expired at 2030-01-02") {
		t.Errorf("err = %v", err)
	}
}
