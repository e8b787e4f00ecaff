// Package mtls owns the TLS configuration of every connection between SPIFFE
// peers: which certificate is shown, and how the peer's is verified and
// authorized. It does not obtain identities and does not decide policy; it
// asks a [Source] and an [Authorize] for them, at each handshake.
//
// Everything about the peer is checked in tls.Config.VerifyConnection, because
// that runs on resumed sessions too. VerifyPeerCertificate, where most SPIFFE
// libraries check, does not: with it, a session ticket outlives the policy and
// the bundle that it was earned under.
package mtls

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Source has the identity of this end and the bundles to verify the other with.
// Both methods are called in each handshake, by many goroutines, and must be
// cheap.
type Source interface {
	// SVID returns the X.509-SVID in use. It returns the same pointer until
	// the SVID is rotated, and an error while there is none.
	SVID() (*x509svid.SVID, error)
	// Bundle returns the bundle of td, or an error if td is not trusted.
	Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error)
}

// Versioned is a [Source] that can tell when any of its answers changed. Session
// ticket keys change with it; of other sources, with the SVID alone.
type Versioned interface {
	Version() uint64
}

// Authorize says whether a peer, verified as id, is accepted. Its error is the
// reason, and ends the handshake.
type Authorize func(id spiffeid.ID) error

// Any accepts every verified peer.
func Any(spiffeid.ID) error { return nil }

// Exactly accepts the one ID.
func Exactly(want spiffeid.ID) Authorize {
	return func(id spiffeid.ID) error {
		if id != want {
			return fmt.Errorf("peer is %q, want %q", id, want)
		}
		return nil
	}
}

// Options vary a configuration; the zero value is usable.
type Options struct {
	// NextProtos are the ALPN protocols (RFC 7301), in order of preference.
	NextProtos []string
	// Now is the time that certificates are verified at; nil is time.Now.
	Now func() time.Time
	// DisableTickets turns session resumption off in a server.
	DisableTickets bool
	// MinVersion is the lowest TLS version; 0 is TLS 1.2.
	MinVersion uint16
	// SessionCache turns resumption on in a client. It must not be shared
	// between policies.
	SessionCache tls.ClientSessionCache
}

func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// Server returns the configuration of a server that requires its clients to
// present an X.509-SVID that auth accepts.
func Server(src Source, auth Authorize, opt Options) *tls.Config {
	return server(src, auth, opt, tls.RequireAnyClientCert)
}

// ServerOptional is [Server] for a listener that also serves clients without a
// certificate. One that is presented must verify and be authorized all the same.
func ServerOptional(src Source, auth Authorize, opt Options) *tls.Config {
	return server(src, auth, opt, tls.RequestClientCert)
}

func server(src Source, auth Authorize, opt Options, clientAuth tls.ClientAuthType) *tls.Config {
	configs := &configCache{build: func(svid *x509svid.SVID) *tls.Config {
		cfg := base(src, auth, opt)
		cfg.Certificates = []tls.Certificate{certificate(svid)}
		cfg.ClientAuth = clientAuth
		cfg.SessionTicketsDisabled = opt.DisableTickets
		// Without keys of its own, a configuration from GetConfigForClient
		// takes those of the outer one, and old tickets would go on to work.
		var key [32]byte
		rand.Read(key[:])
		cfg.SetSessionTicketKeys([][32]byte{key})
		return cfg
	}, now: opt.now}
	outer := base(src, auth, opt)
	outer.ClientAuth = clientAuth
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		svid, err := src.SVID()
		if err != nil {
			return nil, fmt.Errorf("no identity to serve with: %w", err)
		}
		return configs.of(src, svid), nil
	}
	return outer
}

// Client returns the configuration of a client that accepts a server which
// presents an X.509-SVID that auth accepts. It presents the source's SVID where
// the server asks and the source has one. Host names play no part.
func Client(src Source, auth Authorize, opt Options) *tls.Config {
	cfg := base(src, auth, opt)
	// The peer is an X.509-SVID, verified in VerifyConnection by its SPIFFE ID.
	cfg.InsecureSkipVerify = true
	cfg.ClientSessionCache = opt.SessionCache
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		svid, err := src.SVID()
		if err != nil {
			return &tls.Certificate{}, nil // none to present; the server decides
		}
		cert := certificate(svid)
		return &cert, nil
	}
	return cfg
}

func base(src Source, auth Authorize, opt Options) *tls.Config {
	minVersion := opt.MinVersion
	if minVersion == 0 {
		minVersion = tls.VersionTLS12
	}
	return &tls.Config{
		MinVersion: minVersion,
		NextProtos: opt.NextProtos,
		Time:       opt.Now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verify(cs, src, auth, opt)
		},
	}
}

// verify is the one place where a peer is verified and authorized. A server
// that only requests certificates calls it without one; crypto/tls has refused
// that already where one is required.
func verify(cs tls.ConnectionState, src Source, auth Authorize, opt Options) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	id, err := SVIDs{Bundles: bundles{src}}.Verify(cs.PeerCertificates, opt.now())
	if err != nil {
		return err
	}
	if err := auth(id); err != nil {
		return &RefusedError{ID: id, Reason: err}
	}
	return nil
}

// RefusedError says that the peer's certificate is good, and that it was refused for what it says. In a full handshake
// crypto/tls asks before the peer has proved that it has the certificate's key: whoever has a copy of the certificate can be
// refused in its name, but never accepted.
type RefusedError struct {
	ID     spiffeid.ID // zero of a peer that is no SPIFFE workload
	Reason error
}

func (e *RefusedError) Error() string {
	if e.ID.IsZero() {
		return fmt.Sprintf("refused: %v", e.Reason)
	}
	return fmt.Sprintf("refused %s: %v", e.ID, e.Reason)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// PeerID returns the SPIFFE ID in the peer's certificate. The connection's
// handshake must be complete: then the ID is verified. The error is
// [ErrNoPeerCertificate] where none was presented.
func PeerID(cs tls.ConnectionState) (spiffeid.ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return spiffeid.ID{}, ErrNoPeerCertificate
	}
	return x509svid.IDFromCert(cs.PeerCertificates[0])
}

// ErrNoPeerCertificate says that the peer presented no certificate.
var ErrNoPeerCertificate = errors.New("peer presented no certificate")

func certificate(svid *x509svid.SVID) tls.Certificate {
	cert := tls.Certificate{
		Certificate: make([][]byte, 0, len(svid.Certificates)),
		PrivateKey:  svid.PrivateKey,
		Leaf:        svid.Certificates[0],
	}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// bundles makes a Source usable as go-spiffe's bundle source.
type bundles struct{ src Source }

func (b bundles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return b.src.Bundle(td)
}

// ticketKeyLife is how long one session ticket key is used at most, as in
// crypto/tls's own rotation.
const ticketKeyLife = 24 * time.Hour

// configCache keeps the server configuration of the identity in use, so that
// session tickets work, and drops it, with its ticket keys, at each change.
type configCache struct {
	build func(*x509svid.SVID) *tls.Config
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	built   time.Time
	leaf    *x509.Certificate
	version uint64
	config  *tls.Config
}

func (c *configCache) of(src Source, svid *x509svid.SVID) *tls.Config {
	var version uint64
	if v, ok := src.(Versioned); ok {
		version = v.Version()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.config == nil || c.leaf != svid.Certificates[0] || c.version != version || now.Sub(c.built) >= ticketKeyLife {
		c.config, c.leaf, c.version, c.built = c.build(svid), svid.Certificates[0], version, now
	}
	return c.config
}
