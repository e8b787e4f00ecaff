package ca_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

func (s *site) with(change func(*ca.Config)) *ca.Authority {
	s.t.Helper()
	keys, err := ca.OpenKeys(s.keyFile())
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := ca.Config{TrustDomain: td, Keys: keys, Journal: s, Now: s.clock.Now}
	change(&cfg)
	a := ca.New(cfg)
	s.advance(a)
	return a
}

// jwtBundle is what verifiers of JWT-SVIDs have.
func (s *site) jwtBundle() *jwtbundle.Bundle {
	s.t.Helper()
	bundle := jwtbundle.New(td)
	for _, key := range s.state().Bundle.JwtAuthorities {
		public, err := x509.ParsePKIXPublicKey(key.PublicKey)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := bundle.AddJWTAuthority(key.KeyId, public); err != nil {
			s.t.Fatal(err)
		}
	}
	return bundle
}

func part(t *testing.T, token string, n int) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestJWTSVIDForEachKeyType(t *testing.T) {
	for kt, alg := range map[ca.KeyType]string{ca.KeyECP256: "ES256", ca.KeyECP384: "ES384", ca.KeyRSA2048: "RS256"} {
		t.Run(string(kt), func(t *testing.T) {
			s := newSite(t)
			s.clock.now = time.Now() // jwtsvid has no clock to set
			a := s.with(func(cfg *ca.Config) { cfg.JWTKeyType, cfg.JWTIssuer = kt, "https://issuer.test" })
			svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"", "db"}})
			if err != nil {
				t.Fatal(err)
			}
			verified, err := jwtsvid.ParseAndValidate(svid.Token, s.jwtBundle(), []string{"db"})
			if err != nil {
				t.Fatal(err)
			}
			if verified.ID != web || !verified.Expiry.Equal(svid.ExpiresAt) {
				t.Errorf("%+v, want %+v", verified, svid)
			}
			states, err := a.JWTState()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]any{"alg": alg, "kid": states.Active.ID, "typ": "JWT"}, part(t, svid.Token, 0)); diff != "" {
				t.Error(diff)
			}
			if !regexp.MustCompile(`^[0-9A-Za-z]{32}$`).MatchString(states.Active.ID) {
				t.Errorf("kid %q", states.Active.ID)
			}
			iat := s.clock.now.Unix()
			want := map[string]any{
				"sub": web.String(), "aud": []any{"db"}, "iss": "https://issuer.test",
				"iat": float64(iat), "exp": float64(iat + 300),
			}
			if diff := cmp.Diff(want, part(t, svid.Token, 1)); diff != "" {
				t.Error(diff)
			}
			if svid.IssuedAt.Unix() != iat || svid.ExpiresAt.Unix() != iat+300 {
				t.Errorf("%+v", svid)
			}
		})
	}
}

func TestJWTSVIDClaims(t *testing.T) {
	s := newSite(t)
	a := s.start()
	seen := map[string]bool{}
	for range 3 {
		svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a", "b"}, IncludeJTI: true, TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		claims := part(t, svid.Token, 1)
		if _, ok := claims["iss"]; ok {
			t.Error("an issuer that nobody set")
		}
		jti, _ := claims["jti"].(string)
		if len(jti) != 22 || seen[jti] {
			t.Errorf("jti %q", jti)
		}
		seen[jti] = true
		if claims["exp"].(float64)-claims["iat"].(float64) != 60 {
			t.Errorf("%v", claims)
		}
	}
	s.clock.Set(24*time.Hour - 10*time.Second)
	svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}})
	if err != nil || !svid.ExpiresAt.Equal(epoch.Add(24*time.Hour)) {
		t.Errorf("expires %v, %v: want the end of its authority", svid.ExpiresAt, err)
	}
	s.clock.Set(24 * time.Hour)
	if _, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}}); !errors.Is(err, ca.ErrNotReady) {
		t.Errorf("an expired authority signed: %v", err)
	}
	s.clock.Set(0)
	for name, p := range map[string]ca.JWTParams{
		"no audience":           {ID: web, Audience: []string{""}},
		"another trust domain":  {ID: spiffeid.RequireFromString("spiffe://other.test/web"), Audience: []string{"a"}},
		"no ID":                 {Audience: []string{"a"}},
		"the trust domain's ID": {ID: td.ID(), Audience: []string{"a"}},
	} {
		if _, err := a.SignJWTSVID(t.Context(), p); !errors.Is(err, ca.ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// One authority signs for all callers at once.
func TestSignConcurrently(t *testing.T) {
	s := newSite(t)
	a := s.with(func(cfg *ca.Config) { cfg.Composers = []ca.Composer{ca.UniqueID()} })
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				if _, err := a.SignJWTSVID(context.WithoutCancel(t.Context()), ca.JWTParams{ID: web, Audience: []string{"a"}}); err != nil {
					t.Error(err)
				}
				if _, err := a.IssueX509SVID(context.WithoutCancel(t.Context()), ca.Params{ID: web, PublicKey: newKey(t).Public()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := a.PrepareX509(t.Context()); err != nil {
		t.Error(err)
	}
	group.Wait()
}

// TestJWTRotation lets five days pass and holds what an OIDC verifier needs.
func TestJWTRotation(t *testing.T) {
	s := newSite(t)
	a := s.start()
	since := map[string]time.Duration{}
	var signers []string
	for at := time.Duration(0); at < 5*24*time.Hour; at += time.Hour {
		s.clock.Set(at)
		s.advance(a)
		svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		kid := part(t, svid.Token, 0)["kid"].(string)
		for _, key := range s.state().Bundle.JwtAuthorities {
			if _, ok := since[key.KeyId]; !ok {
				since[key.KeyId] = at
			}
			if key.ExpiresAt < s.clock.Now().Add(-25*time.Hour).Unix() {
				t.Fatalf("at %s: a key that expired at %s is still there", at, time.Unix(key.ExpiresAt, 0))
			}
		}
		if !slices.Contains(signers, kid) {
			lead, known := since[kid]
			if !known || len(signers) > 0 && at-lead < 8*time.Hour {
				t.Fatalf("at %s: %s signs, known %v since %s", at, kid, known, lead)
			}
			signers = append(signers, kid)
		}
	}
	if len(signers) != 10 {
		t.Errorf("%d authorities signed in 5 days, want 10", len(signers))
	}
}
