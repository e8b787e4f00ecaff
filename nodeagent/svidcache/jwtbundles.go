package svidcache

import (
	"context"
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

	encode func() ([]byte, error)
}

// newJWTBundles has an empty bundle of its own domain where none is known: an
// answer must have one (SPIFFE Workload API, section 6.2.2).
func newJWTBundles(own spiffeid.TrustDomain, known map[spiffeid.TrustDomain]*jwtsvid.Bundle, federated []spiffeid.TrustDomain) *JWTBundles {
	b := &JWTBundles{parsed: map[spiffeid.TrustDomain]*jwtsvid.Bundle{own: jwtsvid.NewBundle(own)}}
	for _, td := range append([]spiffeid.TrustDomain{own}, federated...) {
		if k := known[td]; k != nil {
			b.parsed[td] = k
		}
	}
	b.encode = sync.OnceValues(b.marshal)
	return b
}

// Bundle returns the keys of td, nil if they may not be used or are not known.
func (b *JWTBundles) Bundle(td spiffeid.TrustDomain) *jwtsvid.Bundle { return b.parsed[td] }

// JWTBundlesResponse returns the encoded message of the Workload API. It is
// shared and must not be changed.
func (b *JWTBundles) JWTBundlesResponse() ([]byte, error) { return b.encode() }

func (b *JWTBundles) marshal() ([]byte, error) {
	resp := &workloadpb.JWTBundlesResponse{Bundles: make(map[string][]byte)}
	for td, bundle := range b.parsed {
		doc, err := bundle.JWKS()
		if err != nil {
			return nil, err
		}
		resp.Bundles[td.IDString()] = doc
	}
	return proto.Marshal(resp)
}

func (b *JWTBundles) same(other *JWTBundles) bool {
	return b != nil && maps.EqualFunc(b.parsed, other.parsed, (*jwtsvid.Bundle).Equal)
}

// setJWT reports whether any bundle changed.
func (c *Cache) setJWT(next map[spiffeid.TrustDomain]*jwtsvid.Bundle) bool {
	changed := !maps.EqualFunc(c.jwt, next, (*jwtsvid.Bundle).Equal)
	c.jwt = next
	return changed
}

// JWTBundles blocks until there are JWT bundles other than those returned before,
// and fails as [Subscription.Answer].
func (s *Subscription) JWTBundles(ctx context.Context) (*JWTBundles, error) {
	bundles, err := wait(ctx, s, s.jwt, func(set *set) *JWTBundles { return set.jwt })
	if err == nil {
		s.jwt = bundles
	}
	return bundles, err
}

// JWTBundlesOf returns the JWT bundles of a caller at this moment: its own trust domain's alone if it has no identity. It fails with
// [ErrNotSynced].
func (c *Cache) JWTBundlesOf(caller Caller) (*JWTBundles, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced {
		return nil, ErrNotSynced
	}
	var federated []spiffeid.TrustDomain
	for _, r := range c.match(caller) {
		federated = append(federated, r.entry.FederatesWith...)
	}
	return newJWTBundles(c.cfg.TrustDomain, c.jwt, federated), nil
}

// Identities returns the entries that a caller is given, by ID; of templates the instances. It fails with [ErrNotSynced] and
// [ErrNoIdentity], and has nothing signed.
func (c *Cache) Identities(caller Caller) ([]registration.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced {
		return nil, ErrNotSynced
	}
	var entries []registration.Entry
	for _, r := range c.match(caller) {
		e := r.entry
		if r.template != nil { // an instance is not made anew for what no certificate says
			e.JWTSVIDTTL, e.JWTSVIDIncludeJTI = r.template.entry.JWTSVIDTTL, r.template.entry.JWTSVIDIncludeJTI
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil, ErrNoIdentity
	}
	return entries, nil
}

// match returns the records of a caller; c.mu is held.
func (c *Cache) match(caller Caller) []*record {
	return c.index.match(caller, c.expand)
}
