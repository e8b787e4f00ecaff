package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/metrics"
)

// sources are what the metrics read at each scrape, which nobody answers before
// all parts are there.
func (p *parts) sources() metrics.Sources {
	return metrics.Sources{
		TrustDomain:    p.cfg.TrustDomain,
		Started:        p.started,
		Version:        p.cfg.Version,
		Entries:        func() int { return p.registry.EntryCount() },
		Agents:         p.countAgents,
		Authorities:    p.listAuthorities,
		BundleSequence: func() uint64 { return p.registry.Bundle().GetSequenceNumber() },
		Store: func() metrics.Store {
			usage := p.store.Usage()
			return metrics.Store{
				Healthy:   p.store.Err() == nil,
				SizeBytes: usage.Bytes, QuotaBytes: usage.Quota, Revision: int64(usage.Revision),
			}
		},
		Identity: identity{p},
	}
}

func (p *parts) countAgents() (n metrics.Agents) {
	now := p.store.Now().Unix()
	for _, agent := range p.registry.Agents() {
		switch {
		case enroll.Banned(agent):
			n.Banned++
		case agent.GetNotAfter() <= now:
			n.Expired++
		default:
			n.Live++
		}
	}
	return n
}

func (p *parts) listAuthorities() []metrics.Authority {
	plan := p.authority.Plan()
	list := make([]metrics.Authority, 0, len(plan.Authorities))
	for _, a := range plan.Authorities {
		list = append(list, metrics.Authority{Kind: a.Kind, ID: a.ID, Status: a.Status, Tainted: a.Tainted, ExpiresAt: a.ExpiresAt})
	}
	return list
}

// identity is the issuer's own, and the bundles it verifies others with.
// It implements mtls.Source.
type identity struct{ p *parts }

func (i identity) SVID() (*x509svid.SVID, error) { return i.p.authority.SVID() }

func (i identity) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td == i.p.cfg.TrustDomain {
		return i.p.bundle()
	}
	foreign, ok := i.p.registry.FederatedBundle(td)
	if !ok {
		return nil, fmt.Errorf("no bundle of trust domain %q: federate with it", td.Name())
	}
	return parseBundle(td, foreign)
}

// bundle is the trust domain's own, for verifying what its members show.
func (p *parts) bundle() (*x509bundle.Bundle, error) {
	return parseBundle(p.cfg.TrustDomain, p.registry.Bundle())
}

// parseBundle leaves authorities out that are tainted: nobody new is let in by
// one.
func parseBundle(td spiffeid.TrustDomain, from *types.Bundle) (*x509bundle.Bundle, error) {
	bundle := x509bundle.New(td)
	for _, authority := range from.GetX509Authorities() {
		if authority.GetTainted() {
			continue
		}
		cert, err := x509.ParseCertificate(authority.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("bundle of %q: %w", td.Name(), err)
		}
		bundle.AddX509Authority(cert)
	}
	if bundle.Empty() {
		return nil, errors.New("there is no authority that is not tainted")
	}
	return bundle, nil
}
