package svidcache

import (
	"maps"
	"sync"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// JWTBundles are the keys that a set of identities may verify JWT-SVIDs with:
// their own trust domain's and those of the domains that the entries federate
// with. Immutable.
type JWTBundles struct {
	parsed map[spiffeid.TrustDomain]*jwtsvid.Bundle

	docs   func() (map[spiffeid.TrustDomain][]byte, error)
	encode func() ([]byte, error)
}

// newJWTBundles has an empty bundle of its own domain where none is known: an
// answer must have one (SPIFFE Workload API, section 6.2.2).
func newJWTBundles(own spiffeid.TrustDomain, known map[spiffeid.TrustDomain]*jwtsvid.Bundle, domains []spiffeid.TrustDomain) *JWTBundles {
	b := &JWTBundles{parsed: make(map[spiffeid.TrustDomain]*jwtsvid.Bundle)}
	for _, td := range domains {
		if k := known[td]; k != nil {
			b.parsed[td] = k
		}
	}
	if b.parsed[own] == nil {
		b.parsed[own] = jwtsvid.NewBundle(own)
	}
	b.docs, b.encode = sync.OnceValues(b.documents), sync.OnceValues(b.marshal)
	return b
}

// Bundle returns the keys of td, nil if they may not be used or are not known.
func (b *JWTBundles) Bundle(td spiffeid.TrustDomain) *jwtsvid.Bundle { return b.parsed[td] }

// JWTBundlesResponse returns the encoded message of the Workload API. It is
// shared and must not be changed.
func (b *JWTBundles) JWTBundlesResponse() ([]byte, error) { return b.encode() }

// ByDomain returns the JWK Set of each trust domain. It is shared and must not be
// changed.
func (b *JWTBundles) ByDomain() map[spiffeid.TrustDomain][]byte {
	docs, _ := b.docs() // fails with keys alone that no JWK can hold: upstream leaves these out
	return docs
}

func (b *JWTBundles) documents() (map[spiffeid.TrustDomain][]byte, error) {
	docs := make(map[spiffeid.TrustDomain][]byte, len(b.parsed))
	for td, bundle := range b.parsed {
		doc, err := bundle.JWKS()
		if err != nil {
			return nil, err
		}
		docs[td] = doc
	}
	return docs, nil
}

func (b *JWTBundles) marshal() ([]byte, error) {
	docs, err := b.docs()
	if err != nil {
		return nil, err
	}
	resp := &workloadpb.JWTBundlesResponse{Bundles: make(map[string][]byte)}
	for td, doc := range docs {
		resp.Bundles[td.IDString()] = doc
	}
	return proto.Marshal(resp)
}

func (b *JWTBundles) same(other *JWTBundles) bool {
	return maps.EqualFunc(b.parsed, other.parsed, (*jwtsvid.Bundle).Equal)
}

// JWTBundlesOf returns the JWT bundles of a caller at this moment: its own trust
// domain's alone if it has no identity. It fails with [ErrNotSynced].
func (c *Cache) JWTBundlesOf(caller Caller) (*JWTBundles, error) {
	caller = caller.normal()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.knows(); err != nil {
		return nil, err
	}
	var federated []spiffeid.TrustDomain
	for _, r := range c.match(caller) {
		federated = append(federated, r.more().federatesWith...)
	}
	return c.trusts(federated).jwt, nil
}

// Identities returns the entries that a caller is given, by ID; of templates the
// instances. It fails with [ErrNotSynced] and [ErrNoIdentity], and has nothing
// signed.
func (c *Cache) Identities(caller Caller) ([]registration.Entry, error) {
	caller = caller.normal()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.knows(); err != nil {
		return nil, err
	}
	var entries []registration.Entry
	for _, r := range c.match(caller) {
		entries = append(entries, r.entry())
	}
	if len(entries) == 0 {
		return nil, c.none()
	}
	return entries, nil
}
