package nodeagent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

func jwtKey(t *testing.T, a *jwttest.Authority) *types.JWTKey {
	t.Helper()
	p, err := a.Proto()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (a *agent) fetchJWT(ctx context.Context, audience string) (*jwtsvid.SVID, error) {
	return workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}, a.addr())
}

func TestJWTSVIDsWithGoSPIFFE(t *testing.T) {
	s := spiretest.New(t, "example.org")
	other := testca.New(t, "other.org")
	s.Federate(other.Bundle())
	authority, theirs := jwttest.New(t, "example.org", "k"), jwttest.New(t, "other.org", "k")
	s.SignJWTs(authority)
	s.SetJWTKeys(authority.TrustDomain, jwtKey(t, authority))
	s.SetJWTKeys(theirs.TrustDomain, jwtKey(t, theirs))
	e := own(s, "tok", "web")
	e.Hint, e.FederatesWith = "external", []spiffeid.TrustDomain{other.TrustDomain}
	s.Put(e)
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)

	source, err := workloadapi.NewJWTSource(t.Context(), workloadapi.WithClientOptions(a.addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "shop", ExtraAudiences: []string{"bank"}, Subject: e.SPIFFEID})
	if err != nil || svid.ID != e.SPIFFEID || svid.Hint != "external" {
		t.Fatalf("got %+v, %v", svid, err)
	}
	foreign := theirs.MustSign(t, jwttest.Claims("spiffe://other.org/x", time.Now(), time.Hour, "shop"))
	for _, token := range []string{svid.Marshal(), foreign} {
		if _, err := jwtsvid.ParseAndValidate(token, source, []string{"shop"}); err != nil {
			t.Errorf("by go-spiffe: %v", err)
		}
		if _, err := workloadapi.ValidateJWTSVID(t.Context(), token, "shop", a.addr()); err != nil {
			t.Errorf("by the agent: %v", err)
		}
	}

	// A new key, and the old one is tainted: its tokens are worth nothing, and nobody is given one.
	next, old := jwttest.New(t, "example.org", "k2"), jwtKey(t, authority)
	old.Tainted = true
	s.SignJWTs(next)
	s.SetJWTKeys(authority.TrustDomain, old, jwtKey(t, next))
	if err := source.WaitUntilUpdated(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := workloadapi.ValidateJWTSVID(t.Context(), svid.Marshal(), "shop", a.addr()); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a token of a tainted key: %v", err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{"shop"}); err == nil {
		t.Error("go-spiffe was given the tainted key")
	}
	again, err := source.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "shop", ExtraAudiences: []string{"bank"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwtsvid.ParseAndValidate(again.Marshal(), source, []string{"bank"}); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	for _, token := range []string{svid.Marshal(), again.Marshal(), foreign} {
		if strings.Contains(a.log.String(), token) || strings.Contains(a.log.String(), strings.Split(token, ".")[2]) {
			t.Error("a token was logged")
		}
	}
}

func TestJWTSVIDsWhileTheIssuerIsAway(t *testing.T) {
	s := spiretest.New(t, "example.org")
	authority := jwttest.New(t, "example.org", "k")
	s.SignJWTs(authority)
	s.SetJWTKeys(authority.TrustDomain, jwtKey(t, authority))
	s.Put(own(s, "tok", "web"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	first, err := a.fetchJWT(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	again, err := a.fetchJWT(t.Context(), "shop")
	if err != nil || again.Marshal() != first.Marshal() {
		t.Errorf("what there is: %v", err)
	}
	if _, err := workloadapi.ValidateJWTSVID(t.Context(), first.Marshal(), "shop", a.addr()); err != nil {
		t.Error(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := a.fetchJWT(t.Context(), "bank")
		waiting <- err
	}()
	s.Start()
	if err := <-waiting; err != nil {
		t.Errorf("who waited for the issuer: %v", err)
	}
	if n := s.Calls("NewJWTSVID"); n != 2 {
		t.Errorf("signed %d times", n)
	}
}
