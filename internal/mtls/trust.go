package mtls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Trust says how a peer's certificates are verified. Whether the peer is wanted is decided after that.
type Trust interface {
	// Verify returns the SPIFFE ID that certs, leaf first, prove; zero if they prove something else. It is called in each
	// handshake, resumed ones too, by many goroutines.
	Verify(certs []*x509.Certificate, now time.Time) (spiffeid.ID, error)
}

// SVIDs trusts X.509-SVIDs: a chain to the bundle of the trust domain that the leaf itself names. Host names play no part.
type SVIDs struct {
	Bundles x509bundle.Source
	Chains  *Chains // may be nil; belongs to these Bundles
	Intern  bool    // see Pool
}

// Verify implements [Trust].
func (s SVIDs) Verify(certs []*x509.Certificate, now time.Time) (spiffeid.ID, error) {
	id, err := s.Chains.verify(question{"svid", certs, now, s.Intern}, func() (spiffeid.ID, [][]*x509.Certificate, error) {
		id, paths, err := x509svid.Verify(certs, s.Bundles, x509svid.WithTime(now))
		if err == nil && id.Path() == "" {
			err = errNoWorkload
		}
		return id, paths, err
	})
	if err == nil || len(certs) == 0 {
		return id, err
	}
	if claimed, idErr := x509svid.IDFromCert(certs[0]); idErr == nil {
		err = fmt.Errorf("peer that claims to be %s: %w", claimed, err)
	}
	return spiffeid.ID{}, err
}

// errNoWorkload refuses what go-spiffe takes: the ID of a trust domain is its authorities' (X.509-SVID, section 3), and every
// pattern TRUST-DOMAIN/** would match it.
var errNoWorkload = errors.New("the certificate names a trust domain, not a workload")

// Pool trusts a chain to one of a set of authorities, whatever it names: certificates as the web has them.
type Pool struct {
	// Roots are the authorities; nil is the system's.
	Roots *x509.CertPool
	// Clients verifies what clients show, by its extended key usage; otherwise what servers do.
	Clients bool
	// Name is the host name or IP address that a server's leaf must have. Without one, every server is refused: the set of
	// authorities alone tells nobody apart.
	Name   string
	Chains *Chains // may be nil; belongs to these Roots
	// Intern lets Verify replace elements of certs by equal ones that Chains holds. crypto/tls's servers parse what they are
	// shown anew in each full handshake, and keep it as long as the connection: some 3 KiB each. It must not be set for
	// clients and for resumed sessions: their list belongs to the session, which other connections use at the same time.
	// They need no replacement either, as crypto/tls has a cache for them.
	Intern bool
}

// Verify implements [Trust]. The ID is always zero: no authority of a pool is bound to a trust domain.
func (p Pool) Verify(certs []*x509.Certificate, now time.Time) (spiffeid.ID, error) {
	if len(certs) == 0 {
		return spiffeid.ID{}, ErrNoPeerCertificate
	}
	purpose, usage := "server", x509.ExtKeyUsageServerAuth
	if p.Clients {
		purpose, usage = "client", x509.ExtKeyUsageClientAuth
	}
	_, err := p.Chains.verify(question{purpose, certs, now, p.Intern}, func() (spiffeid.ID, [][]*x509.Certificate, error) {
		intermediates := x509.NewCertPool()
		for _, c := range certs[1:] {
			intermediates.AddCert(c)
		}
		paths, err := certs[0].Verify(x509.VerifyOptions{Roots: p.Roots, Intermediates: intermediates, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{usage}})
		return spiffeid.ID{}, paths, err
	})
	// The chain is the same for all names: the name is looked at each time.
	switch {
	case err != nil || p.Clients:
	case p.Name == "":
		err = errNoHostName
	default:
		err = certs[0].VerifyHostname(p.Name)
	}
	return spiffeid.ID{}, err
}

var errNoHostName = errors.New("there is no host name to know the server by: give the target one, or a server name")

// KeyOnly trusts whoever has a key, without a look at the certificate: for rules that pin the key itself.
type KeyOnly struct{}

// Verify implements [Trust].
func (KeyOnly) Verify(certs []*x509.Certificate, _ time.Time) (spiffeid.ID, error) {
	if len(certs) == 0 {
		return spiffeid.ID{}, ErrNoPeerCertificate
	}
	return spiffeid.ID{}, nil
}
