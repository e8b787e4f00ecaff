// Package identity owns where a sidecar's certificates come from: it turns what the Workload API offers, or what files hold,
// into versions of one identity, each immutable. It does not speak the Workload API (internal/workload does), verifies no
// peer and builds no TLS configuration.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// Identity is one version: what is shown to peers, and what they are verified with. Its answers never change, so a
// handshake has one view from its start to its end.
type Identity struct {
	version     uint64
	svid        *x509svid.SVID                              // nil if there is none
	certificate *tls.Certificate                            // nil: none is shown
	bundles     map[spiffeid.TrustDomain]*x509bundle.Bundle // nil unless peers are verified by SPIFFE ID
	roots       *x509.CertPool                              // without bundles; nil is the system's
	challenge   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	chains      mtls.Chains // those of peers, verified with bundles or roots
}

// ID is the SPIFFE ID; zero if there is no SVID.
func (i *Identity) ID() spiffeid.ID {
	if i.svid == nil {
		return spiffeid.ID{}
	}
	return i.svid.ID
}

// Certificate is what peers are shown; nil if nothing is.
func (i *Identity) Certificate() *tls.Certificate { return i.certificate }

// IsSPIFFE reports whether peers are verified by SPIFFE ID, with Bundle; otherwise it is by Roots.
func (i *Identity) IsSPIFFE() bool { return i.bundles != nil }

// SVID implements mtls.Source.
func (i *Identity) SVID() (*x509svid.SVID, error) {
	if i.svid == nil {
		return nil, errors.New("this identity is no X.509-SVID")
	}
	return i.svid, nil
}

// Bundle implements mtls.Source.
func (i *Identity) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if b, ok := i.bundles[td]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("no bundle of trust domain %s", td)
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (i *Identity) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return i.Bundle(td)
}

// Roots are the authorities of peers that are not verified by SPIFFE ID; nil is the system's.
func (i *Identity) Roots() *x509.CertPool { return i.roots }

// Chains remembers the peers' chains that verified with this version.
func (i *Identity) Chains() *mtls.Chains { return &i.chains }

// Challenge answers an ACME authority's probe (RFC 8737); nil unless the certificate comes from one. With ACME there is a
// version before the first certificate, so that the probe for it can be answered: its Certificate is nil.
func (i *Identity) Challenge() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return i.challenge
}

// Version implements mtls.Versioned: it grows from each identity of a Source to the next.
func (i *Identity) Version() uint64 { return i.version }

// same reports whether the other identity would change nothing in a handshake.
func (i *Identity) same(o *Identity) bool {
	if !slices.EqualFunc(i.svid.Certificates, o.svid.Certificates, (*x509.Certificate).Equal) || len(i.bundles) != len(o.bundles) {
		return false
	}
	for td, b := range i.bundles {
		if other, ok := o.bundles[td]; !ok || !b.Equal(other) {
			return false
		}
	}
	return true
}

// certificateOf is an SVID as crypto/tls takes it.
func certificateOf(svid *x509svid.SVID) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// bundleStatus tells about bundles that came at updated.
func bundleStatus(bundles map[spiffeid.TrustDomain]*x509bundle.Bundle, updated time.Time) []BundleStatus {
	var out []BundleStatus
	for _, td := range slices.SortedFunc(maps.Keys(bundles), spiffeid.TrustDomain.Compare) {
		authorities := bundles[td].X509Authorities()
		out = append(out, BundleStatus{TrustDomain: td.Name(), Authorities: len(authorities), NotAfter: firstExpiry(authorities), Updated: updated})
	}
	return out
}

func firstExpiry(certs []*x509.Certificate) (first time.Time) {
	for i, c := range certs {
		if i == 0 || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
