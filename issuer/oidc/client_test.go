package oidc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// verify verifies token as a relying party with a stock library does: discovery first, then keys, then the token.
func verify(t *testing.T, s *site, server *Server, issuer, audience, token string) (*oidc.IDToken, error) {
	t.Helper()
	ctx := oidc.ClientContext(t.Context(), s.client(t, server.Addr()))
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	return provider.VerifierContext(ctx, &oidc.Config{ClientID: audience}).Verify(ctx, token)
}

func TestStockLibraryVerifiesJWTSVIDs(t *testing.T) {
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			s := newSite(t)
			signer := newAuthority(t, "key1", alg)
			s.bundle.set(signer.published(t))
			server := run(t, s.config())
			const issuer = "https://oidc.test"
			token := signer.sign(t, issuer, "shop", time.Now().Add(time.Minute))
			got, err := verify(t, s, server, issuer, "shop", token)
			if err != nil {
				t.Fatal(err)
			}
			if got.Subject != "spiffe://lanyard.test/web" || got.Issuer != issuer {
				t.Errorf("verified %+v", got)
			}
			if _, err := verify(t, s, server, issuer, "bank", token); err == nil || !strings.Contains(err.Error(), "audience") {
				t.Errorf("another audience: %v", err)
			}
			expired := signer.sign(t, issuer, "shop", time.Now().Add(-time.Second))
			if _, err := verify(t, s, server, issuer, "shop", expired); err == nil || !strings.Contains(err.Error(), "expired") {
				t.Errorf("an expired token: %v", err)
			}
			stranger := newAuthority(t, "key1", alg).sign(t, issuer, "shop", time.Now().Add(time.Minute))
			if _, err := verify(t, s, server, issuer, "shop", stranger); err == nil {
				t.Error("took a token that another key signed under the same key ID")
			}
		})
	}
}

// One relying party, which keeps its keys in memory, goes along with a rotation and stops with a revocation.
func TestStockLibraryFollowsARotation(t *testing.T) {
	s := newSite(t)
	before, after := newAuthority(t, "before", jose.ES256), newAuthority(t, "after", jose.RS256)
	s.bundle.set(before.published(t))
	server := run(t, s.config())
	const issuer = "https://oidc.test"
	provider := func() *oidc.IDTokenVerifier {
		ctx := oidc.ClientContext(context.WithoutCancel(t.Context()), s.client(t, server.Addr()))
		p, err := oidc.NewProvider(ctx, issuer)
		if err != nil {
			t.Fatal(err)
		}
		return p.VerifierContext(ctx, &oidc.Config{ClientID: "shop"})
	}
	long := provider()
	check := func(when string, v *oidc.IDTokenVerifier, signer authority, want bool) {
		t.Helper()
		_, err := v.Verify(t.Context(), signer.sign(t, issuer, "shop", time.Now().Add(time.Minute)))
		if (err == nil) != want {
			t.Errorf("%s: a token of %q: %v", when, signer.id, err)
		}
	}
	check("at first", long, before, true)
	check("at first", long, after, false)

	s.bundle.set(before.published(t), after.published(t)) // prepared, then active
	check("prepared", long, before, true)
	check("active", long, after, true)

	tainted := before.published(t)
	tainted.Tainted = true
	s.bundle.set(tainted, after.published(t))
	check("tainted", provider(), before, true)

	s.bundle.set(after.published(t))
	check("revoked", provider(), before, false)
	check("revoked", provider(), after, true)
}

func TestStockLibraryFindsAnIssuerBelowAPath(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"by issuer":              func(c *Config) { c.Issuer, c.Domains = "https://oidc.test/prod/a", nil },
		"by prefix":              func(c *Config) { c.PathPrefix = "/prod/a" },
		"by both":                func(c *Config) { c.Issuer, c.PathPrefix = "https://oidc.test/prod/a", "/prod/a/" },
		"with keys on their own": func(c *Config) { c.Issuer, c.JWKSURI = "https://oidc.test/prod/a", "https://keys.test/keys" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			signer := newAuthority(t, "key1", jose.ES256)
			s.bundle.set(signer.published(t))
			cfg := s.config()
			set(&cfg)
			server := run(t, cfg)
			const issuer = "https://oidc.test/prod/a"
			token := signer.sign(t, issuer, "shop", time.Now().Add(time.Minute))
			_, err := verify(t, s, server, issuer, "shop", token)
			if cfg.JWKSURI != "" {
				// The client was sent to another name, for which there is no certificate here.
				if err == nil || !strings.Contains(err.Error(), "keys.test") {
					t.Errorf("with a jwks_uri elsewhere: %v", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStockLibraryRefusesAnIssuerOfAnotherName(t *testing.T) {
	s := newSite(t)
	cfg := s.config()
	cfg.Issuer = "https://elsewhere.test"
	server := run(t, cfg)
	var mismatch *oidc.IssuerMismatchError
	_, err := verify(t, s, server, "https://oidc.test", "shop", "")
	if !errors.As(err, &mismatch) || mismatch.Discovered != cfg.Issuer {
		t.Errorf("another issuer: %v", err)
	}
}
