package tlsend

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

const (
	// sessionsKept is how many servers a client keeps a session of.
	sessionsKept = 32
	// ticketKeyLife is how long one session ticket key is used at most, as in crypto/tls's own rotation.
	ticketKeyLife = 24 * time.Hour
	// acmeProtocol is what an ACME authority's probe asks for by ALPN (RFC 8737, section 3).
	acmeProtocol = "acme-tls/1"
)

var errNoCertificate = errors.New("there is no certificate to show yet")

// versioned is the configuration of one version of the identity. Everything that lives in it, as session tickets and
// session caches do, ends with the version.
type versioned struct {
	of     *identity.Identity
	config *tls.Config
	built  time.Time
}

// config returns the configuration of id. ctx is that of any connection.
func (e *End) config(ctx context.Context, id *identity.Identity) *tls.Config {
	now := e.cfg.Now()
	v := e.newest.Load()
	if v != nil && v.of == id && now.Sub(v.built) < ticketKeyLife {
		return v.config
	}
	config := e.build(id)
	shared := context.WithoutCancel(ctx) // a policy that doesn't need the connection doesn't need its end either
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := e.verify(shared, id, cs, "")
		return err
	}
	if v != nil && v.of.Version() > id.Version() {
		return config // a straggler's; those of the newest stay
	}
	if !e.newest.CompareAndSwap(v, &versioned{of: id, config: config, built: now}) {
		if v = e.newest.Load(); v.of == id {
			return v.config
		}
	}
	return config
}

// base is what both ends' configurations have in common.
func (e *End) base() *tls.Config {
	return &tls.Config{
		MinVersion:             e.cfg.MinVersion,
		MaxVersion:             e.cfg.MaxVersion,
		CipherSuites:           e.cfg.CipherSuites,
		NextProtos:             e.cfg.NextProtos,
		Time:                   e.cfg.Now,
		SessionTicketsDisabled: e.cfg.DisableResumption,
	}
}

func (e *End) server(id *identity.Identity) *tls.Config {
	config := e.base()
	if cert := id.Certificate(); cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	if !e.cfg.NoClientAuth {
		config.ClientAuth = tls.RequireAnyClientCert // verified by verify
	}
	if !e.cfg.NoClientAuth && !e.cfg.Pins {
		config.ClientCAs = id.Roots() // by their names some clients choose what they show
	}
	// Keys of its own: those that crypto/tls makes by itself are not in the clones.
	var key [32]byte
	rand.Read(key[:])
	config.SetSessionTicketKeys([][32]byte{key})
	if id.Challenge() != nil {
		e.answerProbes(config, id)
	}
	return config
}

// answerProbes makes config answer an ACME authority's probes.
func (e *End) answerProbes(config *tls.Config, id *identity.Identity) {
	config.NextProtos = slices.DeleteFunc(slices.Clone(config.NextProtos), func(p string) bool { return p == acmeProtocol })
	probe := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{acmeProtocol},
		GetCertificate:         id.Challenge(),
		SessionTicketsDisabled: true,
		Time:                   e.cfg.Now,
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != "" && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeProtocol {
			return probe, nil
		}
		if len(config.Certificates) == 0 {
			return nil, errNoCertificate
		}
		return nil, nil // config itself
	}
}

// probed reports whether a connection was an ACME authority's probe, which is never let through.
func probed(id *identity.Identity, cs tls.ConnectionState) bool {
	return id.Challenge() != nil && cs.NegotiatedProtocol == acmeProtocol
}

func (e *End) client(id *identity.Identity) *tls.Config {
	config := e.base()
	config.ServerName = e.cfg.ServerName
	config.InsecureSkipVerify = true // verified by verify
	if !e.cfg.DisableResumption {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
	}
	cert := id.Certificate()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil // none to show; the server decides
		}
		return cert, nil
	}
	return config
}

// trust is how the peer of a connection of id is verified.
func (e *End) trust(id *identity.Identity, cs tls.ConnectionState) mtls.Trust {
	server := e.direction == record.Inbound
	intern := server && !cs.DidResume
	switch {
	case e.cfg.Pins:
		return mtls.KeyOnly{}
	case id.IsSPIFFE():
		return mtls.SVIDs{Bundles: id, Chains: id.Chains(), Intern: intern}
	case server:
		return mtls.Pool{Roots: id.Roots(), Clients: true, Chains: id.Chains(), Intern: intern}
	default:
		return mtls.Pool{Roots: id.Roots(), Name: e.cfg.VerifyName, Chains: id.Chains()}
	}
}
