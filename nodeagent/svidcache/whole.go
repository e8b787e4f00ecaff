package svidcache

import (
	"encoding/json"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// AllBundles returns the bundles of all trust domains that are known, and a
// channel that is closed when any of them changes. It fails with [ErrNotSynced].
// They are for delegates, which serve callers that the agent doesn't see.
func (c *Cache) AllBundles() (*Bundles, *JWTBundles, <-chan struct{}, error) {
	return nil, nil, nil, ErrNotSynced
}

// OwnBundles is the same for the agent's own trust domain alone: what anyone may
// know where verifiers need no identity.
func (c *Cache) OwnBundles() (*Bundles, *JWTBundles, <-chan struct{}, error) {
	return nil, nil, nil, ErrNotSynced
}

// ByDomain returns the JWK Set of each trust domain.
func (b *JWTBundles) ByDomain() map[spiffeid.TrustDomain][]byte {
	docs := make(map[spiffeid.TrustDomain][]byte)
	for td, bundle := range b.parsed {
		docs[td], _ = json.Marshal(bundle)
	}
	return docs
}
