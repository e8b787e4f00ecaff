package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// ParseTrustBundle reads the PEM bundle that an agent of td first meets its
// issuer with. A certificate that names another trust domain is an error: the
// handshake would fail with less to say.
func ParseTrustBundle(td spiffeid.TrustDomain, pem []byte) (*x509bundle.Bundle, error) {
	bundle, err := x509bundle.Parse(td, pem)
	if err != nil {
		return nil, fmt.Errorf("trust bundle is not a list of PEM certificates (%w): use the output of bundle show at the issuer", err)
	}
	return bundle, CheckTrustBundle(bundle)
}

// CheckTrustBundle reports what [ParseTrustBundle] does of a bundle that came in
// another format.
func CheckTrustBundle(bundle *x509bundle.Bundle) error {
	td := bundle.TrustDomain()
	if bundle.Empty() {
		return errors.New("trust bundle has no certificate: use the output of bundle show at the issuer")
	}
	for _, cert := range bundle.X509Authorities() {
		for _, uri := range cert.URIs {
			id, err := spiffeid.FromURI(uri)
			if err == nil && !id.MemberOf(td) {
				return fmt.Errorf("trust bundle is of trust domain %q, the agent's trust domain is %q: use the bundle of the agent's own issuer, or set trust_domain", id.TrustDomain().Name(), td.Name())
			}
		}
	}
	return nil
}

// merge returns the authorities of both, either of which may be nil.
func merge(td spiffeid.TrustDomain, a, b *x509bundle.Bundle) *x509bundle.Bundle {
	merged := x509bundle.New(td)
	for _, bundle := range []*x509bundle.Bundle{a, b} {
		if bundle == nil {
			continue
		}
		for _, cert := range bundle.X509Authorities() {
			merged.AddX509Authority(cert)
		}
	}
	return merged
}

// serverID is the SPIFFE ID of every issuer of td.
func serverID(td spiffeid.TrustDomain) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/spire/server")
}

// insecureTLS takes any certificate that says it is the issuer's, as SPIRE's
// insecure_bootstrap: whoever can answer at the address can be it.
func insecureTLS(td spiffeid.TrustDomain) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2"},
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := x509svid.IDFromCert(cs.PeerCertificates[0])
			if err != nil {
				return err
			}
			if id != serverID(td) {
				return fmt.Errorf("server is %s, want %s", id, serverID(td))
			}
			return nil
		},
	}
}
