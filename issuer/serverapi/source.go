package serverapi

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// source is the issuer's identity and the bundles it verifies clients with: its
// own trust domain's and, each for itself, those of administrators from others.
// It implements [mtls.Source].
type source struct {
	deps Deps
	// parsed has a place for each trust domain that clients may come from. The
	// map itself is not changed.
	parsed map[spiffeid.TrustDomain]*atomic.Pointer[trusted]
}

// trusted is a bundle as handshakes and calls need it: the same pointer as long
// as its X.509 authorities are the same.
type trusted struct {
	bundle *x509bundle.Bundle
	chains *mtls.Chains
	// from is the newest record with these authorities.
	from atomic.Pointer[types.Bundle]
}

func newSource(d Deps) *source {
	s := &source{deps: d, parsed: map[spiffeid.TrustDomain]*atomic.Pointer[trusted]{d.TrustDomain: {}}}
	for _, id := range d.AdminIDs {
		if s.parsed[id.TrustDomain()] == nil {
			s.parsed[id.TrustDomain()] = &atomic.Pointer[trusted]{}
		}
	}
	return s
}

// SVID implements [mtls.Source].
func (s *source) SVID() (*x509svid.SVID, error) { return s.deps.CA.SVID() }

// Bundle implements [mtls.Source].
func (s *source) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	t, err := s.trusted(td)
	if err != nil {
		return nil, err
	}
	return t.bundle, nil
}

// trusted returns the bundle of td, parsed once for each version of it.
func (s *source) trusted(td spiffeid.TrustDomain) (*trusted, error) {
	place, ok := s.parsed[td]
	if !ok {
		return nil, fmt.Errorf("no bundle of trust domain %q is asked: none of admin_ids is of it", td.Name())
	}
	latest := s.deps.Registry.Bundle()
	if td != s.deps.TrustDomain {
		if latest, ok = s.deps.Registry.FederatedBundle(td); !ok {
			return nil, fmt.Errorf("no bundle of trust domain %q, which admin_ids name: federate with it", td.Name())
		}
	}
	known := place.Load()
	if known != nil && known.from.Load() == latest {
		return known, nil
	}
	ders := make([][]byte, 0, len(latest.GetX509Authorities()))
	for _, authority := range latest.GetX509Authorities() {
		ders = append(ders, authority.GetAsn1())
	}
	certs, err := parseAuthorities(ders)
	if err != nil {
		return nil, fmt.Errorf("bundle of trust domain %q: %w", td.Name(), err)
	}
	bundle := x509bundle.FromX509Authorities(td, certs)
	if known != nil && known.bundle.Equal(bundle) {
		known.from.Store(latest)
		return known, nil
	}
	t := &trusted{bundle: bundle, chains: &mtls.Chains{}}
	t.from.Store(latest)
	place.Store(t)
	return t, nil
}

// verify verifies the certificate of a connection's client with the bundle as it
// is now, if that is another than the last time.
func (s *source) verify(info *connInfo, now time.Time) error {
	id, err := mtls.PeerID(info.State)
	if err != nil {
		return err
	}
	t, err := s.trusted(id.TrustDomain())
	if err != nil {
		return err
	}
	if info.verified.Load() == t {
		return nil
	}
	if _, err := (mtls.SVIDs{Bundles: t.bundle, Chains: t.chains}).Verify(info.State.PeerCertificates, now); err != nil {
		return err
	}
	info.verified.Store(t)
	return nil
}
