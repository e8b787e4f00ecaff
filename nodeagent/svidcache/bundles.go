package svidcache

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Bundles are those that a set of identities may verify peers with: their own
// trust domain's and those that the entries federate with. Immutable.
type Bundles struct {
	own    spiffeid.TrustDomain
	parsed map[spiffeid.TrustDomain]*x509bundle.Bundle
	der    map[spiffeid.TrustDomain][]byte // authorities concatenated

	encode func() ([]byte, error)
}

// derBundle is a bundle and its wire form, made once per change.
type derBundle struct {
	bundle *x509bundle.Bundle
	der    []byte
}

func newBundles(own spiffeid.TrustDomain, known map[spiffeid.TrustDomain]derBundle, domains []spiffeid.TrustDomain) *Bundles {
	b := &Bundles{own: own, parsed: make(map[spiffeid.TrustDomain]*x509bundle.Bundle), der: make(map[spiffeid.TrustDomain][]byte)}
	for _, td := range domains {
		if k, ok := known[td]; ok {
			b.parsed[td], b.der[td] = k.bundle, k.der
		}
	}
	b.encode = sync.OnceValues(b.marshal)
	return b
}

// X509BundlesResponse returns the encoded message of the Workload API. It is
// shared and must not be changed.
func (b *Bundles) X509BundlesResponse() ([]byte, error) { return b.encode() }

// ByDomain returns the authorities of each trust domain, DER concatenated. It is
// shared and must not be changed.
func (b *Bundles) ByDomain() map[spiffeid.TrustDomain][]byte { return b.der }

func (b *Bundles) marshal() ([]byte, error) {
	resp := &workloadpb.X509BundlesResponse{Bundles: make(map[string][]byte)}
	for td, der := range b.der {
		resp.Bundles[td.IDString()] = der
	}
	return proto.Marshal(resp)
}

// same compares what is shared: a bundle that did not change keeps its bytes.
func (b *Bundles) same(other *Bundles) bool { return maps.Equal(b.parsed, other.parsed) }

// trust is the bundles of both kinds for all who federate with the same domains.
type trust struct {
	x509 *Bundles
	jwt  *JWTBundles
}

// after returns t with what did not change since was, which stays the same pointer
// and is not sent again.
func (t *trust) after(was *trust) *trust {
	if was == nil || t == was {
		return t
	}
	x509, jwt := t.x509.same(was.x509), t.jwt.same(was.jwt)
	switch {
	case x509 && jwt:
		return was
	case x509:
		return &trust{x509: was.x509, jwt: t.jwt}
	case jwt:
		return &trust{x509: t.x509, jwt: was.jwt}
	}
	return t
}

// maxTrusts bounds what is remembered of combinations that nobody may have any
// more.
const maxTrusts = 1000

// trusts returns the bundles for who federates with the domains, and the own. It
// is the same pointer as long as they are the same.
func (c *Cache) trusts(federated []spiffeid.TrustDomain) *trust {
	domains := append([]spiffeid.TrustDomain{c.cfg.TrustDomain}, federated...)
	if len(domains) > 1 {
		slices.SortFunc(domains, spiffeid.TrustDomain.Compare)
		domains = slices.Compact(domains)
	}
	var name strings.Builder
	for _, td := range domains {
		name.WriteString(td.Name())
		name.WriteByte(0)
	}
	key := name.String()
	known := c.trusted[key]
	if known.trust != nil && known.of == c.bundlesVersion {
		return known.trust
	}
	next := &trust{x509: newBundles(c.cfg.TrustDomain, c.bundles, domains), jwt: newJWTBundles(c.cfg.TrustDomain, c.jwt, domains)}
	next = next.after(known.trust)
	if len(c.trusted) >= maxTrusts && known.trust == nil {
		clear(c.trusted)
	}
	c.trusted[key] = versionedTrust{trust: next, of: c.bundlesVersion}
	return next
}

// versionedTrust is what the bundles of a version came to.
type versionedTrust struct {
	trust *trust
	of    uint64
}

// setBundles reports whether any bundle changed. One that did not keeps its
// encoding, by which answers are compared.
func (c *Cache) setBundles(u upstream.Update) bool {
	next := make(map[spiffeid.TrustDomain]derBundle, 1+len(u.Federated))
	for _, b := range u.Federated {
		c.addBundle(next, b)
	}
	c.addBundle(next, u.Bundle)
	x509 := !maps.EqualFunc(c.bundles, next, func(a, b derBundle) bool { return a.bundle == b.bundle })
	jwt := !maps.EqualFunc(c.jwt, u.JWT, (*jwtsvid.Bundle).Equal)
	if !x509 && !jwt {
		return false
	}
	own := c.cfg.TrustDomain
	ownToo := c.bundles[own].bundle != next[own].bundle || !c.jwt[own].Equal(u.JWT[own])
	c.bundles, c.jwt = next, u.JWT
	c.bundlesVersion++
	c.all.ring()
	if ownToo {
		c.own.ring()
	}
	return true
}

func (c *Cache) addBundle(next map[spiffeid.TrustDomain]derBundle, b *x509bundle.Bundle) {
	if b == nil {
		return
	}
	td := b.TrustDomain()
	if old, ok := c.bundles[td]; ok && (old.bundle == b || old.bundle.Equal(b)) {
		next[td] = old
		return
	}
	var der []byte
	for _, cert := range b.X509Authorities() {
		der = append(der, cert.Raw...)
	}
	next[td] = derBundle{bundle: b, der: der}
}

// bell tells whoever waits without a subscription.
type bell struct{ rung chan struct{} }

func newBell() bell { return bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	close(b.rung)
	b.rung = make(chan struct{})
}

// AllBundles returns the bundles of all trust domains that are known, and a
// channel that is closed when any of them changes. It fails with [ErrNotSynced].
// They are for delegates, which serve callers that the agent doesn't see.
func (c *Cache) AllBundles() (*Bundles, *JWTBundles, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	domains := slices.Collect(maps.Keys(c.bundles))
	for td := range c.jwt {
		domains = append(domains, td)
	}
	return c.give(domains, &c.all)
}

// OwnBundles is the same for the agent's own trust domain alone: what anyone may
// know where verifiers need no identity.
func (c *Cache) OwnBundles() (*Bundles, *JWTBundles, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.give(nil, &c.own)
}

func (c *Cache) give(domains []spiffeid.TrustDomain, b *bell) (*Bundles, *JWTBundles, <-chan struct{}, error) {
	if err := c.knows(); err != nil {
		return nil, nil, nil, err
	}
	t := c.trusts(domains)
	return t.x509, t.jwt, b.rung, nil
}
