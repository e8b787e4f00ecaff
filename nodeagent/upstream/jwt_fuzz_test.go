package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// FuzzJWTKeys gives a bundle one good key and one of any content: the good one stays, and all that is taken can be published.
func FuzzJWTKeys(f *testing.F) {
	var good []byte
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P256()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		if good, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
			f.Fatal(err)
		}
		f.Add(good, "k", int64(0), false)
	}
	f.Add([]byte{}, "", int64(-1), true)
	f.Add(good, "good", int64(1<<62), true)
	td := spiffeid.RequireTrustDomainFromString("example.org")
	f.Fuzz(func(t *testing.T, der []byte, id string, expires int64, tainted bool) {
		bundle := readJWT(td, &types.Bundle{TrustDomain: td.Name(), JwtAuthorities: []*types.JWTKey{
			{PublicKey: good, KeyId: "good"}, {PublicKey: der, KeyId: id, ExpiresAt: expires, Tainted: tainted},
		}}, slog.New(slog.DiscardHandler))
		doc, err := bundle.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(doc, &set); err != nil {
			t.Fatalf("%v: %s", err, doc)
		}
		if !bundle.Has("good") || tainted && id != "good" && bundle.Has(id) {
			t.Fatalf("keys: %s", doc)
		}
	})
}
