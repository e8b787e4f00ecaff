package upstream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

func proto(t *testing.T, a *jwttest.Authority, tainted bool) *types.JWTKey {
	t.Helper()
	p, err := a.Proto()
	if err != nil {
		t.Fatal(err)
	}
	p.Tainted = tainted
	return p
}

func TestJWTKeysOfTheBundles(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	own, foreign := s.CA.TrustDomain, testca.New(t, "known.org")
	good, tainted, expired := jwttest.New(t, "example.org", "good"), jwttest.New(t, "example.org", "tainted"), jwttest.New(t, "example.org", "expired")
	good.ExpiresAt, expired.ExpiresAt = time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	theirs := jwttest.New(t, "known.org", "theirs")
	s.SetJWTKeys(own, proto(t, good, false), proto(t, tainted, true), proto(t, expired, false),
		&types.JWTKey{KeyId: "odd", PublicKey: []byte("odd")}, &types.JWTKey{PublicKey: proto(t, good, false).PublicKey})
	s.SetJWTKeys(foreign.TrustDomain, proto(t, theirs, false))
	s.Federate(foreign.Bundle())
	e := entry(s, "tok", "a")
	e.FederatesWith = []spiffeid.TrustDomain{foreign.TrustDomain}
	s.Put(e)
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	first := a.synced()
	if len(first.JWT) != 2 || !first.JWT[foreign.TrustDomain].Has("theirs") {
		t.Fatalf("bundles: %v", first.JWT)
	}
	for _, id := range []string{"good", "tainted", "expired", "odd", ""} {
		if got := first.JWT[own].Has(id); got != (id == "good") {
			t.Errorf("key %q: %v", id, got)
		}
	}
	if again := a.synced(); again.JWT[own] != first.JWT[own] {
		t.Error("a bundle that did not change is another")
	}
	s.SetJWTKeys(own, proto(t, good, true))
	a.await("the taint", func(state upstream.Update) bool { return !state.JWT[own].Has("good") })
	e.FederatesWith, e.Revision = nil, 1
	s.Put(e)
	a.await("the end of the federation", func(state upstream.Update) bool { return len(state.JWT) == 1 })
}

func TestTemplatesAreAskedFor(t *testing.T) {
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without sync %v", without), func(t *testing.T) {
			s := spiretest.New(t, "example.org")
			s.Set(func(sw *spiretest.Switches) { sw.NoSync, sw.NoChanges = without, true })
			s.SignJWTs(jwttest.New(t, "example.org", "k"))
			template, err := registration.ParseTemplate(s.CA.TrustDomain, "/u/{{unix:user}}")
			if err != nil {
				t.Fatal(err)
			}
			e := entry(s, "tok", "a")
			e.SPIFFEID, e.Template = spiffeid.ID{}, template
			s.Put(e)
			a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
			if state := a.synced(); len(state.Entries) != 1 || state.Entries[0].Template != template {
				t.Fatalf("entries: %+v", state.Entries)
			}
			token, err := a.NewJWTSVID(t.Context(), "a~/u/root", []string{"shop"})
			if err != nil || token.ID.String() != "spiffe://example.org/u/root" || !token.For("shop") {
				t.Errorf("got %v, %v", token, err)
			}
		})
	}
}

func TestNewJWTSVIDTellsTheIssuersReason(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(entry(s, "tok", "a"))
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	a.synced()
	a.drain()
	if _, err := a.NewJWTSVID(t.Context(), "a", []string{"shop"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("disabled: %v", err)
	}
	s.SignJWTs(jwttest.New(t, "example.org", "k"))
	if _, err := a.NewJWTSVID(t.Context(), "b", []string{"shop"}); status.Code(err) != codes.NotFound {
		t.Errorf("another's entry: %v", err)
	}
	token, err := a.NewJWTSVID(t.Context(), "a", []string{"shop", "bank"})
	if err != nil || token.ID.Path() != "/a" || token.KeyID != "k" || token.ExpiresAt.IsZero() {
		t.Errorf("got %v, %v", token, err)
	}
}
