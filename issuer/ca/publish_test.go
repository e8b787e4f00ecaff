package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

func encoded(t *testing.T, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// An issuer below this one that publishes without end must not make the bundle
// too large for agents, or leave no room for our own next authority.
func TestGuardPublishedKeysAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.start()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := encoded(t, key.Public())
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]*types.JWTKey{
		"long ID":   {KeyId: strings.Repeat("x", 256), PublicKey: public},
		"short key": {KeyId: "short", PublicKey: encoded(t, short.Public())},
		"no key":    {KeyId: "none", PublicKey: []byte{1}},
		"expired":   {KeyId: "over", PublicKey: public, ExpiresAt: s.clock.Now().Unix()},
		"no time":   {KeyId: "never", PublicKey: public, ExpiresAt: math.MaxInt64},
	} {
		if _, err := a.PublishJWTKey(t.Context(), bad); !errors.Is(err, ca.ErrAuthorityID) {
			t.Errorf("%s: %v", name, err)
		}
	}
	const most = 1000
	if _, err := s.store.UpdateCA(t.Context(), func(c *store.CAState) error {
		for i := len(c.Bundle.JwtAuthorities); i < most; i++ {
			c.Bundle.JwtAuthorities = append(c.Bundle.JwtAuthorities, &types.JWTKey{KeyId: fmt.Sprintf("%0255d", i), PublicKey: public})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.PublishJWTKey(t.Context(), &types.JWTKey{KeyId: "more", PublicKey: public}); !errors.Is(err, ca.ErrAuthorityID) {
		t.Errorf("one more than %d: %v", most, err)
	}
	// What is there already may come again, and we go on.
	if _, err := a.PublishJWTKey(t.Context(), &types.JWTKey{KeyId: fmt.Sprintf("%0255d", most-1), PublicKey: public}); err != nil {
		t.Errorf("a key that is published already: %v", err)
	}
	if _, err := a.PrepareJWT(t.Context()); err != nil {
		t.Errorf("our own next authority: %v", err)
	}
}
