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

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
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
	return mtls.ServerOptional(&source{deps: g.deps}, member, mtls.Options{
		NextProtos:     []string{"h2"},
		Now:            g.deps.Now,
		DisableTickets: true,
	})
}

// source is the issuer's identity and the bundles it verifies clients with. It
// implements [mtls.Source].
type source struct {
	deps   Deps
	parsed atomic.Pointer[parsedBundle]
}

// parsedBundle is the registry's bundle as handshakes need it.
type parsedBundle struct {
	from   *types.Bundle
	bundle *x509bundle.Bundle
}

func (s *source) SVID() (*x509svid.SVID, error) { return s.deps.CA.SVID() }

// Bundle returns the own trust domain's bundle, parsed once for each version of
// it. Bundles of other trust domains are not known yet.
func (s *source) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != s.deps.TrustDomain {
		return nil, fmt.Errorf("no bundle of trust domain %q", td.Name())
	}
	latest := s.deps.Registry.Bundle()
	if parsed := s.parsed.Load(); parsed != nil && parsed.from == latest {
		return parsed.bundle, nil
	}
	var certs []*x509.Certificate
	for _, authority := range latest.GetX509Authorities() {
		cert, err := x509.ParseCertificate(authority.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("bundle of trust domain %q: %w", td.Name(), err)
		}
		certs = append(certs, cert)
	}
	bundle := x509bundle.FromX509Authorities(td, certs)
	s.parsed.Store(&parsedBundle{from: latest, bundle: bundle})
	return bundle, nil
}

// loggedCreds tells in the log why a handshake failed: the client is told
// nothing but that its certificate is bad.
type loggedCreds struct {
	credentials.TransportCredentials
	log *slog.Logger
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c loggedCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		say := c.log.Warn
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded) {
			say = c.log.Debug // a probe, not a client
		}
		say("connection refused", "address", raw.RemoteAddr().String(), "error", clip(err.Error()))
	}
	return conn, info, err
}
