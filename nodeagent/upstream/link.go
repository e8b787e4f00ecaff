package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
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

const (
	// rpcTimeout is how long one call may take.
	rpcTimeout = 30 * time.Second
	// maxMessage bounds one answer. The issuer pages; a list of entries from
	// one that doesn't may be long.
	maxMessage = 64 << 20
)

// link is a connection to the issuer as one identity. gRPC opens it anew when it
// breaks; another identity is another link.
type link struct {
	conn *grpc.ClientConn
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
func dial(addr string, svid *x509svid.SVID, cfg *tls.Config) (*link, error) {
	l := &link{svid: svid}
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
	conn, err := grpc.NewClient("dns:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// Quick to return after a restart of the issuer: SVIDs may live 10 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("issuer address %q: %w", addr, err)
	}
	l.conn = conn
	return l, nil
}

// explain adds to the error of a call why the issuer could not be verified.
func (l *link) explain(err error) error {
	if cause := l.unverified.Load(); cause != nil && status.Code(err) == codes.Unavailable {
		return &unverifiedError{cause: *cause}
	}
	return err
}

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

// links hands out the one link of the identity in use, and closes a replaced one
// when its last call is over.
type links struct {
	open func(*x509svid.SVID) (*link, error)
	// connects counts the handshakes with issuers on all links.
	connects atomic.Int64

	mu  sync.Mutex
	now *link
}

// use returns the link of svid and what to call when done with it.
func (ls *links) use(svid *x509svid.SVID) (*link, func(), error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.now == nil || ls.now.svid != svid {
		next, err := ls.open(svid)
		if err != nil {
			return nil, nil, err
		}
		next.connected = func() { ls.connects.Add(1) }
		ls.retire(ls.now)
		ls.now = next
	}
	l := ls.now
	l.users++
	return l, sync.OnceFunc(func() { ls.done(l) }), nil
}

func (ls *links) done(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.users--
	if l.retired && l.users == 0 {
		l.conn.Close()
	}
}

// drop makes the next call open a new link in place of l.
func (ls *links) drop(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.now == l {
		ls.retire(l)
		ls.now = nil
	}
}

// retire closes l when nobody uses it any more; ls.mu is held.
func (ls *links) retire(l *link) {
	if l == nil {
		return
	}
	l.retired = true
	if l.users == 0 {
		l.conn.Close()
	}
}

func (ls *links) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.retire(ls.now)
	ls.now = nil
}

// withTimeout runs one call.
func withTimeout(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	return call(ctx)
}
