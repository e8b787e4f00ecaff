package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// keySet is the key set as it was last asked for. The zero value is one that was not.
type keySet struct {
	use string // of each key, "" to leave it out
	log *slog.Logger

	mu     sync.Mutex
	of     [sha256.Size]byte // of the keys that doc was made from
	cached document
	empty  bool // none of the keys can be published
}

// document is an answer with what tells it from others.
type document struct {
	body []byte
	etag string
}

func newDocument(body []byte) document {
	sum := sha256.Sum256(body)
	return document{body: body, etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// document returns the key set with the keys, or false if there are none. It is made anew only for other keys than the
// last ones.
func (s *keySet) document(keys []*types.JWTKey) (document, bool, error) {
	of := digest(keys)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cached.body != nil && s.of == of {
		return s.cached, !s.empty, nil
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		jwk, err := publish(key)
		if err != nil {
			s.log.Error("a JWT authority of the bundle cannot be published: relying parties will refuse what it signs",
				"key_id", key.GetKeyId(), "error", err)
			continue
		}
		jwk.Use = s.use
		set.Keys = append(set.Keys, jwk)
	}
	body, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return document{}, false, err
	}
	s.of, s.cached, s.empty = of, newDocument(body), len(set.Keys) == 0
	return s.cached, !s.empty, nil
}

// digest tells lists of keys apart by what is published of them.
func digest(keys []*types.JWTKey) [sha256.Size]byte {
	h := sha256.New()
	var size [8]byte
	for _, key := range keys {
		for _, part := range [][]byte{[]byte(key.GetKeyId()), key.GetPublicKey()} {
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			h.Write(size[:])
			h.Write(part)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// publish makes the form in which relying parties read a key. The algorithm goes with it, as SPIRE's: the one that
// issuers sign with such a key by.
func publish(key *types.JWTKey) (jose.JSONWebKey, error) {
	public, err := x509.ParsePKIXPublicKey(key.GetPublicKey())
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("parse its public key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: public, KeyID: key.GetKeyId()}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() < 2048 {
			return jose.JSONWebKey{}, fmt.Errorf("an RSA key of %d bits, at least 2048 are needed", public.N.BitLen())
		}
		jwk.Algorithm = string(jose.RS256)
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			jwk.Algorithm = string(jose.ES256)
		case elliptic.P384():
			jwk.Algorithm = string(jose.ES384)
		default:
			return jose.JSONWebKey{}, fmt.Errorf("a key of curve %s, want P-256 or P-384", public.Curve.Params().Name)
		}
	default:
		return jose.JSONWebKey{}, fmt.Errorf("a key of type %T, want RSA or ECDSA", public)
	}
	return jwk, nil
}
