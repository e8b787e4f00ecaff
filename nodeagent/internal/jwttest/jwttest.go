// Package jwttest owns throwaway JWT authorities: keys, their bundle, and any
// token that a test wants signed, good or bad. It is for tests only.
package jwttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// Authority is one key of a trust domain, P-256.
type Authority struct {
	TrustDomain spiffeid.TrustDomain
	KeyID       string
	Key         *ecdsa.PrivateKey
	// ExpiresAt is when its bundle says it ends; zero is never.
	ExpiresAt time.Time
}

// New returns an authority of the trust domain.
func New(t testing.TB, td, keyID string) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{TrustDomain: spiffeid.RequireTrustDomainFromString(td), KeyID: keyID, Key: key}
}

// Public is the key as bundles have it.
func (a *Authority) Public() jwtsvid.Key {
	return jwtsvid.Key{ID: a.KeyID, Public: a.Key.Public(), ExpiresAt: a.ExpiresAt}
}

// Bundle has the authority's key and those of more.
func (a *Authority) Bundle(more ...*Authority) *jwtsvid.Bundle {
	keys := []jwtsvid.Key{a.Public()}
	for _, other := range more {
		keys = append(keys, other.Public())
	}
	return jwtsvid.NewBundle(a.TrustDomain, keys...)
}

// Proto is the key as the issuer's API has it.
func (a *Authority) Proto() (*types.JWTKey, error) {
	der, err := x509.MarshalPKIXPublicKey(a.Key.Public())
	if err != nil {
		return nil, err
	}
	p := &types.JWTKey{PublicKey: der, KeyId: a.KeyID}
	if !a.ExpiresAt.IsZero() {
		p.ExpiresAt = a.ExpiresAt.Unix()
	}
	return p, nil
}

// Claims are those of a good token.
func Claims(id string, issued time.Time, life time.Duration, audience ...string) map[string]any {
	return map[string]any{"sub": id, "aud": audience, "iat": issued.Unix(), "exp": issued.Add(life).Unix()}
}

// Sign signs claims, with further headers.
func (a *Authority) Sign(claims map[string]any, headers ...map[jose.HeaderKey]any) (string, error) {
	options := new(jose.SignerOptions).WithType("JWT")
	for _, extra := range headers {
		for key, value := range extra {
			options.WithHeader(key, value)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: a.Key, KeyID: a.KeyID}}, options)
	if err != nil {
		return "", err
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return token, nil
}

// MustSign is Sign for tests.
func (a *Authority) MustSign(t testing.TB, claims map[string]any, headers ...map[jose.HeaderKey]any) string {
	t.Helper()
	token, err := a.Sign(claims, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// SignRaw signs any payload.
func (a *Authority) SignRaw(payload []byte) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: a.Key, KeyID: a.KeyID}}, nil)
	if err != nil {
		return "", err
	}
	token, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return token.CompactSerialize()
}
