package serverapi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// tlsConfig serves with the issuer's own SVID. A client certificate is optional,
// for an agent that joins has none; one that is presented must verify with the
// bundle of its own trust domain and be a member of the issuer's, or in
// admin_ids. No session is resumed, so that no ticket outlives a key.
func tlsConfig(g *guard) *tls.Config {
	member := func(id spiffeid.ID) error {
		if _, ok := g.admins[id]; ok || id.MemberOf(g.deps.TrustDomain) {
			return nil
		}
		return fmt.Errorf("not a member of trust domain %q, and not in admin_ids", g.deps.TrustDomain.Name())
	}
	cfg := mtls.ServerOptional(g.source, member, mtls.Options{
		NextProtos:     []string{"h2"},
		Now:            g.deps.Now,
		DisableTickets: true,
	})
	if g.deps.RequirePQKEM {
		requirePQKEM(cfg)
	}
	return cfg
}

// requirePQKEM leaves key exchanges that a quantum computer cannot break later:
// TLS 1.3 with the hybrids of ML-KEM (FIPS 203).
func requirePQKEM(cfg *tls.Config) {
	narrow := func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS13
		c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}
	}
	narrow(cfg)
	of := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := of(hello)
		if err != nil {
			return nil, err
		}
		c = c.Clone() // the other one is shared
		narrow(c)
		return c, nil
	}
}

// connInfo is what the handshake found out about a connection.
type connInfo struct {
	credentials.TLSInfo
	since time.Time // when it was done
	// verified is what the client's certificate was last verified with; nil
	// before the first call.
	verified atomic.Pointer[trusted]
}

// export gives keying material of the connection, as enroll.Exporter says.
func (i *connInfo) export(label string, context []byte, n int) ([]byte, error) {
	return i.State.ExportKeyingMaterial(label, context, n)
}

// serverCreds are TLS. They tell in the log why a handshake failed: the client
// is told nothing but that its certificate is bad.
type serverCreds struct {
	credentials.TransportCredentials
	guard *guard
	log   *slog.Logger
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		say := c.log.Warn
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded) {
			say = c.log.Debug // a probe, not a client
		}
		say("connection refused", "address", raw.RemoteAddr().String(), "error", clip(err.Error()))
		return conn, info, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		return conn, info, nil
	}
	return c.guard.bound(conn, tlsInfo), &connInfo{TLSInfo: tlsInfo, since: time.Now()}, nil
}

// Clone implements [credentials.TransportCredentials].
func (c serverCreds) Clone() credentials.TransportCredentials {
	return serverCreds{c.TransportCredentials.Clone(), c.guard, c.log}
}

// parseAuthorities parses the X.509 authorities of a bundle.
func parseAuthorities(ders [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}
