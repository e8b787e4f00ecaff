package ca_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// byHand are the calls of one kind of authority.
type byHand struct {
	state                   func() (ca.States, error)
	prepare                 func() (ca.AuthorityState, error)
	activate, taint, revoke func(id string) (ca.AuthorityState, error)
}

func hands(t *testing.T, a *ca.Authority) map[string]byHand {
	ctx := t.Context()
	return map[string]byHand{
		"x509": {
			a.X509State,
			func() (ca.AuthorityState, error) { return a.PrepareX509(ctx) },
			func(id string) (ca.AuthorityState, error) { return a.ActivateX509(ctx, id) },
			func(id string) (ca.AuthorityState, error) { return a.TaintX509(ctx, id) },
			func(id string) (ca.AuthorityState, error) { return a.RevokeX509(ctx, id) },
		},
		"jwt": {
			a.JWTState,
			func() (ca.AuthorityState, error) { return a.PrepareJWT(ctx) },
			func(id string) (ca.AuthorityState, error) { return a.ActivateJWT(ctx, id) },
			func(id string) (ca.AuthorityState, error) { return a.TaintJWT(ctx, id) },
			func(id string) (ca.AuthorityState, error) { return a.RevokeJWT(ctx, id) },
		},
	}
}

// refused wants SPIRE's text, and the kind that the API makes a code of.
func refused(t *testing.T, err, kind error, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) || err.Error() != text {
		t.Errorf("got %v, want %q of kind %v", err, text, kind)
	}
}

// TestForcedRotation goes through an incident, and restarts the issuer between
// any two steps of it. The texts are SPIRE's.
func TestForcedRotation(t *testing.T) {
	s := newSite(t)
	for _, kind := range []string{"x509", "jwt"} {
		t.Run(kind, func(t *testing.T) {
			name := map[string]string{"x509": "X.509", "jwt": "JWT"}[kind]
			on := func() byHand { return hands(t, s.start())[kind] }
			must := func(state ca.AuthorityState, err error) ca.AuthorityState {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				return state
			}
			states, err := on().state()
			if err != nil || states.Prepared != nil || states.Old != nil {
				t.Fatalf("%+v, %v", states, err)
			}
			first := *states.Active
			_, err = on().activate("")
			refused(t, err, ca.ErrAuthorityID, "no authority ID provided")
			_, err = on().activate("other")
			refused(t, err, ca.ErrAuthorityID, "unexpected authority ID")
			_, err = on().taint(first.ID)
			refused(t, err, ca.ErrAuthorityID, "unable to taint current local authority")
			_, err = on().taint("")
			refused(t, err, ca.ErrAuthorityID, "no authority ID provided")
			_, err = on().taint("other")
			refused(t, err, ca.ErrAuthorityID, "unexpected authority ID")
			_, err = on().revoke(first.ID)
			refused(t, err, ca.ErrAuthorityID, "invalid authority ID: unable to use current authority")
			_, err = on().revoke("")
			refused(t, err, ca.ErrAuthorityID, "invalid authority ID: no authority ID provided")

			second := must(on().prepare())
			if !published(s, kind, second.ID) {
				t.Fatal("prepared and not published")
			}
			_, err = on().taint(second.ID)
			refused(t, err, ca.ErrAuthorityID, "only Old local authorities can be tainted: unsupported local authority status: PREPARED")
			if _, err = on().revoke(second.ID); !errors.Is(err, ca.ErrAuthorityID) {
				t.Errorf("revoked what is prepared: %v", err)
			}
			must(on().activate(second.ID))
			states, err = on().state()
			if diff := cmp.Diff(ca.States{Active: &second, Old: &first}, states, cmpopts.EquateApproxTime(0)); err != nil || diff != "" {
				t.Fatalf("%v (-want +got):\n%s", err, diff)
			}
			_, err = on().activate(first.ID)
			refused(t, err, ca.ErrAuthorityState, "only Prepared authorities can be activated: unsupported local authority status: OLD")
			untainted := map[string]string{"x509": "it is not possible to revoke an untainted root CA", "jwt": "it is not possible to revoke an untainted key"}[kind]
			_, err = on().revoke(first.ID)
			refused(t, err, ca.ErrAuthorityState, "failed to revoke "+name+" authority: "+untainted)

			must(on().taint(first.ID))
			if !tainted(s, kind, first.ID) || tainted(s, kind, second.ID) {
				t.Fatal("the wrong one is tainted")
			}
			again := map[string]string{"x509": "root CA is already tainted", "jwt": "key is already tainted"}[kind]
			_, err = on().taint(first.ID)
			refused(t, err, ca.ErrAuthorityState, "failed to taint "+name+" authority: "+again)
			must(on().revoke(first.ID))
			if published(s, kind, first.ID) {
				t.Fatal("revoked and still published")
			}
			gone := map[string]string{"x509": "no root CA found with provided subject key ID", "jwt": "no JWT Key found with provided key ID"}[kind]
			_, err = on().revoke(first.ID)
			refused(t, err, ca.ErrAuthorityState, "failed to revoke "+name+" authority: "+gone)
			if states, err = on().state(); err != nil || states.Active.ID != second.ID {
				t.Errorf("%+v, %v", states, err)
			}
		})
	}
}

func published(s *site, kind, id string) bool {
	s.t.Helper()
	if kind == "x509" {
		for _, cert := range s.bundle() {
			if hexOf(cert.SubjectKeyId) == id {
				return true
			}
		}
		return false
	}
	for _, key := range s.state().Bundle.JwtAuthorities {
		if key.KeyId == id {
			return true
		}
	}
	return false
}

func tainted(s *site, kind, id string) bool {
	s.t.Helper()
	bundle := s.state().Bundle
	for _, key := range bundle.JwtAuthorities {
		if kind == "jwt" && key.KeyId == id {
			return key.Tainted
		}
	}
	for _, authority := range bundle.X509Authorities {
		if cert := parse(s.t, authority.Asn1); kind == "x509" && hexOf(cert.SubjectKeyId) == id {
			return authority.Tainted
		}
	}
	s.t.Fatalf("authority %s is not in the bundle", id)
	return false
}

// The issuer must not go on with a certificate that its peers drop.
func TestOwnSVIDLeavesATaintedRoot(t *testing.T) {
	s := newSite(t)
	a := s.start()
	hand := hands(t, a)["x509"]
	signer := func() string {
		own, err := a.SVID()
		if err != nil {
			t.Fatal(err)
		}
		return hexOf(own.Certificates[0].AuthorityKeyId)
	}
	first := signer()
	second, err := hand.prepare()
	if err != nil {
		t.Fatal(err)
	}
	changed := a.Rotated()
	if _, err := hand.activate(second.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the change")
	}
	if signer() != first {
		t.Error("the SVID was renewed though its root is as good as before")
	}
	if _, err := hand.taint(first); err != nil {
		t.Fatal(err)
	}
	if signer() != second.ID {
		t.Error("the SVID is still below the tainted root")
	}
}

// What is prepared by hand waits for the hand, and for SPIRE's point at last.
func TestPreparedByHandSignsAtSPIREsPointAtLast(t *testing.T) {
	s := newSite(t)
	a := s.start()
	first := hexOf(sign(t, a).AuthorityKeyId)
	second, err := a.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third, err := a.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ActivateX509(t.Context(), second.ID); err == nil {
		t.Error("one that another took the place of was activated")
	}
	s.clock.Set(20*time.Hour - time.Second)
	s.advance(a)
	if got := hexOf(sign(t, a).AuthorityKeyId); got != first {
		t.Errorf("%s signs, want %s", got, first)
	}
	s.clock.Set(20 * time.Hour)
	s.advance(a)
	if got := hexOf(sign(t, a).AuthorityKeyId); got != third.ID {
		t.Errorf("%s signs, want %s", got, third.ID)
	}
}

func TestJWTDisabled(t *testing.T) {
	s := newSite(t)
	keys, err := ca.OpenKeys(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	a := ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: s, Now: s.clock.Now, DisableJWT: true})
	s.advance(a)
	if n := len(s.state().Bundle.JwtAuthorities); n != 0 {
		t.Errorf("%d JWT authorities in the bundle", n)
	}
	hand := hands(t, a)["jwt"]
	_, stateErr := hand.state()
	_, prepareErr := hand.prepare()
	_, taintErr := hand.taint("x")
	_, revokeErr := hand.revoke("x")
	_, signErr := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}})
	for _, err := range []error{stateErr, prepareErr, taintErr, revokeErr, signErr} {
		refused(t, err, ca.ErrJWTDisabled, "JWT functionality is disabled")
	}
}

func TestStateBeforeTheFirstAuthority(t *testing.T) {
	s := newSite(t)
	for kind, hand := range hands(t, s.open()) {
		_, err := hand.state()
		refused(t, err, ca.ErrNotReady, "server is initializing")
		_, err = hand.prepare()
		if !errors.Is(err, ca.ErrNotReady) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestUpstreamCallsWithoutUpstream(t *testing.T) {
	s := newSite(t)
	a := s.start()
	refused(t, a.TaintX509Upstream(t.Context(), "aa"), ca.ErrUpstream, "upstream authority is not configured")
	refused(t, a.RevokeX509Upstream(t.Context(), "aa"), ca.ErrUpstream, "upstream authority is not configured")
}

// The journal stays small however often someone prepares.
func TestJournalIsBounded(t *testing.T) {
	s := newSite(t)
	a := s.start()
	for range 15 {
		if _, err := a.PrepareJWT(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	state := s.state()
	if n := len(state.JWTAuthorities); n != 10 {
		t.Errorf("%d records, want 10", n)
	}
	if n := len(state.Bundle.JwtAuthorities); n != 16 {
		t.Errorf("%d authorities in the bundle, want all 16: what they signed may be alive", n)
	}
	if plan := a.Plan(); !strings.Contains(plan.Events[len(plan.Events)-1].Action, "prune") {
		t.Errorf("the plan ends with %+v", plan.Events[len(plan.Events)-1])
	}
}

// TestNothingIsPlannedForARevokedAuthority: it has left the bundle, so the plan does not say that it will.
func TestNothingIsPlannedForARevokedAuthority(t *testing.T) {
	a := newSite(t).start()
	for kind, h := range hands(t, a) {
		must := func(state ca.AuthorityState, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return state.ID
		}
		states, err := h.state()
		if err != nil {
			t.Fatal(err)
		}
		old := states.Active.ID
		must(h.activate(must(h.prepare())))
		planned := func() (n int) {
			for _, e := range a.Plan().Events {
				if e.AuthorityID == old {
					n++
				}
			}
			return n
		}
		must(h.taint(old))
		if n := planned(); n != 2 {
			t.Errorf("%s: %d events of the tainted authority, want its end and its pruning", kind, n)
		}
		must(h.revoke(old))
		if n := planned(); n != 0 {
			t.Errorf("%s: %d events of the revoked authority", kind, n)
		}
	}
}
