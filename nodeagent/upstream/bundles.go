package upstream

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// bundle is one trust domain's, as the issuer told it.
type bundle struct {
	x509     *x509bundle.Bundle
	jwt      *jwtsvid.Bundle
	tainted  []*x509.Certificate
	sequence uint64
}

// bundles are all that the agent holds. A value is immutable.
type bundles struct {
	own       bundle
	federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	jwt       map[spiffeid.TrustDomain]*jwtsvid.Bundle // of own too
}

// with returns the bundles after a change: next are new, or gone where they are
// empty, and of the federated ones only those of keep are there. What does not
// differ is the same pointer, or the same map, as before.
func (b bundles) with(own spiffeid.TrustDomain, next map[spiffeid.TrustDomain]bundle, keep func(spiffeid.TrustDomain) bool) bundles {
	after := bundles{own: b.own, federated: make(map[spiffeid.TrustDomain]*x509bundle.Bundle), jwt: make(map[spiffeid.TrustDomain]*jwtsvid.Bundle)}
	if o := next[own]; o.x509 != nil {
		o.x509, o.jwt = older(b.own.x509, o.x509), older(b.own.jwt, o.jwt)
		if slices.EqualFunc(o.tainted, b.own.tainted, (*x509.Certificate).Equal) {
			o.tainted = b.own.tainted
		}
		after.own = o
	}
	if after.own.jwt != nil {
		after.jwt[own] = after.own.jwt
	}
	for td, held := range b.federated {
		if n, ok := next[td]; keep(td) && (!ok || n.x509 != nil) {
			after.federated[td], after.jwt[td] = held, b.jwt[td]
		}
	}
	for td, n := range next {
		if td != own && keep(td) && n.x509 != nil {
			after.federated[td], after.jwt[td] = older(after.federated[td], n.x509), older(after.jwt[td], n.jwt)
		}
	}
	if b.federated != nil && maps.Equal(after.federated, b.federated) {
		after.federated = b.federated
	}
	if b.jwt != nil && maps.Equal(after.jwt, b.jwt) {
		after.jwt = b.jwt
	}
	return after
}

// older returns before where the bundle after is equal to it.
func older[B interface {
	comparable
	Equal(B) bool
}](before, after B) B {
	var none B
	if before != none && after != none && before.Equal(after) {
		return before
	}
	return after
}

func bundleMask() *types.BundleMask {
	return &types.BundleMask{X509Authorities: true, JwtAuthorities: true, SequenceNumber: true}
}

// readBundle reads all of a bundle that an agent has a use for. JWT keys that
// cannot be read are left out and told of.
func readBundle(p *types.Bundle, log *slog.Logger) (bundle, error) {
	x, err := parseBundle(p)
	if err != nil {
		return bundle{}, err
	}
	b := bundle{x509: x, jwt: readJWT(x.TrustDomain(), p, log), sequence: p.GetSequenceNumber()}
	for _, authority := range p.GetX509Authorities() {
		if authority.GetTainted() {
			certs, err := x509.ParseCertificates(authority.GetAsn1())
			if err != nil {
				return bundle{}, err // parseBundle has read it
			}
			b.tainted = append(b.tainted, certs...)
		}
	}
	return b, nil
}

// parseBundle reads the X.509 part of a bundle.
func parseBundle(p *types.Bundle) (*x509bundle.Bundle, error) {
	td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	bundle := x509bundle.New(td)
	for i, authority := range p.GetX509Authorities() {
		// asn1 may hold several certificates.
		certs, err := x509.ParseCertificates(authority.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("X.509 authority %d of %q: %w", i, td.Name(), err)
		}
		for _, cert := range certs {
			bundle.AddX509Authority(cert)
		}
	}
	if bundle.Empty() {
		return nil, fmt.Errorf("bundle of %q has no X.509 authority", td.Name())
	}
	return bundle, nil
}
