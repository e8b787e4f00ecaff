// Package jwtsvid owns JWT-SVIDs as their verifiers see them: the keys of a
// trust domain, and whether a token is valid (SPIFFE JWT-SVID, sections 2 to 4).
// It is pure: keys and time are given to it. It signs nothing and keeps nothing.
package jwtsvid

import (
	"cmp"
	"crypto"
	"encoding/json"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Key is one that a trust domain signs JWT-SVIDs with.
type Key struct {
	// ID is what tokens name it by, "kid"; not empty.
	ID string
	// Public is an *ecdsa.PublicKey or *rsa.PublicKey.
	Public crypto.PublicKey
	// ExpiresAt is when it verifies no more; zero is never.
	ExpiresAt time.Time
}

func (k Key) equal(other Key) bool {
	pub, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool })
	return k.ID == other.ID && k.ExpiresAt.Equal(other.ExpiresAt) && ok && pub.Equal(other.Public)
}

// Bundle is the keys of one trust domain. It is immutable.
type Bundle struct {
	td   spiffeid.TrustDomain
	keys []Key // by ID
}

// NewBundle returns the bundle of td with the keys; of two with one ID, the
// first.
func NewBundle(td spiffeid.TrustDomain, keys ...Key) *Bundle {
	sorted := slices.Clone(keys)
	slices.SortStableFunc(sorted, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	sorted = slices.CompactFunc(sorted, func(a, b Key) bool { return a.ID == b.ID })
	return &Bundle{td: td, keys: sorted}
}

// TrustDomain returns whose keys they are.
func (b *Bundle) TrustDomain() spiffeid.TrustDomain { return b.td }

// Keys returns the keys, by ID; of a nil bundle none. They are shared and must not
// be changed.
func (b *Bundle) Keys() []Key {
	if b == nil {
		return nil
	}
	return b.keys
}

// Equal reports whether both have the same keys; either may be nil.
func (b *Bundle) Equal(other *Bundle) bool {
	if b == nil || other == nil || b == other {
		return b == other
	}
	return b.td == other.td && slices.EqualFunc(b.keys, other.keys, Key.equal)
}

// Has reports whether the bundle has a key of the ID, however old.
func (b *Bundle) Has(id string) bool {
	_, ok := b.find(id)
	return ok
}

// At returns the key of the ID if it is good at now.
func (b *Bundle) At(id string, now time.Time) (crypto.PublicKey, bool) {
	k, ok := b.find(id)
	if !ok || !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return nil, false
	}
	return k.Public, true
}

func (b *Bundle) find(id string) (Key, bool) {
	i, ok := slices.BinarySearchFunc(b.keys, id, func(k Key, id string) int { return cmp.Compare(k.ID, id) })
	if !ok {
		return Key{}, false
	}
	return b.keys[i], true
}

// JWKS returns the keys as a JWK Set (RFC 7517) for any JWT library: without
// "use", whose value in SPIFFE's bundles is none that these know.
func (b *Bundle) JWKS() ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range b.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: k.ID})
	}
	return json.Marshal(set)
}
