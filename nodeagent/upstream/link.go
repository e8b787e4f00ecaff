package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// maxMessage bounds one answer, in bytes. The issuer pages; a list of entries from
// one that doesn't may be long.
const maxMessage = 64 << 20

// link is a connection to the issuer as one identity. gRPC opens it anew when it
// breaks; another identity or another address is another link.
type link struct {
	conn *grpc.ClientConn
	addr string
	svid *x509svid.SVID // nil: no client certificate
	// unverified is why the issuer's certificate was refused last.
	unverified atomic.Pointer[error]
	// connected, if it is set before the first call, is called at each handshake.
	connected func()

	// Guarded by links.mu.
	users   int
	retired bool
}

// dial makes a link; it does no I/O. TLS is cfg, whose VerifyConnection is
// observed.
func (c *Client) dial(addr string, svid *x509svid.SVID, cfg *tls.Config) (*link, error) {
	l := &link{addr: addr, svid: svid}
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		if err != nil {
			l.unverified.Store(&err)
		} else {
			l.unverified.Store(nil)
			if l.connected != nil {
				l.connected()
			}
		}
		return err
	}
	creds := credentials.NewTLS(cfg)
	if c.cfg.RequirePQKEM {
		cfg.MinVersion, cfg.CurvePreferences = tls.VersionTLS13, []tls.CurveID{tls.X25519MLKEM768}
		creds = pqCredentials{credentials.NewTLS(cfg)}
	}
	conn, err := grpc.NewClient("dns:///"+addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// Quick to return after a restart of the issuer: SVIDs may live 10 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: c.patience() / 3,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("issuer address %q: %w", addr, err)
	}
	l.conn = conn
	return l, nil
}

// dialTrusted makes a link to an issuer that the agent's own bundle verifies.
func (c *Client) dialTrusted(addr string, svid *x509svid.SVID) (*link, error) {
	cfg := c.source(svid).tlsConfig()
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		c.mistake.note(err)
		return err
	}
	return c.dial(addr, svid, cfg)
}

// pqCredentials tells why an issuer without the key exchange says no more than
// "handshake failure".
type pqCredentials struct {
	credentials.TransportCredentials
}

func (p pqCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := p.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		err = fmt.Errorf("%w: does the issuer have X25519MLKEM768 with TLS 1.3, which require_pq_kem wants?", err)
	}
	return secured, info, err
}

func (p pqCredentials) Clone() credentials.TransportCredentials {
	return pqCredentials{p.TransportCredentials.Clone()}
}

// explain adds to the error of a call why the issuer could not be verified.
func (l *link) explain(err error) error {
	if cause := l.unverified.Load(); cause != nil && status.Code(err) == codes.Unavailable {
		return &unverifiedError{cause: *cause}
	}
	if status.Code(err) == codes.Unavailable && strings.Contains(status.Convert(err).Message(), unresolved) {
		host, _, _ := net.SplitHostPort(l.addr)
		return status.Errorf(codes.Unavailable, "the issuer's name %q is not found: is it right, and does this machine's DNS know it?", host)
	}
	return err
}

// unresolved is what gRPC's round_robin says of a name that its resolver has no
// address for; why it has none is lost there.
const unresolved = "no children to pick from"

// unverifiedError says that what answers at the address is not the issuer.
type unverifiedError struct{ cause error }

func (e *unverifiedError) Error() string {
	return fmt.Sprintf("what answers there is not verified as the issuer: %v", e.cause)
}

func (e *unverifiedError) Unwrap() error { return e.cause }

// GRPCStatus keeps the call's code for those who look at it.
func (e *unverifiedError) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, e.Error())
}

// linkSource shows one SVID for as long as the link lives, and the newest bundle.
type linkSource struct {
	svid   *x509svid.SVID
	td     spiffeid.TrustDomain
	bundle func() *x509bundle.Bundle
}

var errNoSVID = errors.New("the agent has no SVID")

func (s linkSource) SVID() (*x509svid.SVID, error) {
	if s.svid == nil {
		return nil, errNoSVID
	}
	return s.svid, nil
}

func (s linkSource) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != s.td {
		return nil, fmt.Errorf("it is of trust domain %q, this agent is of %q", td.Name(), s.td.Name())
	}
	if b := s.bundle(); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("no bundle of trust domain %q", td.Name())
}

func (s linkSource) tlsConfig() *tls.Config {
	return mtls.Client(s, mtls.Exactly(serverID(s.td)), mtls.Options{NextProtos: []string{"h2"}})
}
