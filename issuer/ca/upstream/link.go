package upstream

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// link is the connection to the parent, and the identity that it was made with.
// The identity is fetched, not watched: a stream of go-spiffe's can end for ever
// and unseen, and one call at half of the SVID's life is all that is needed.
type link struct {
	cfg SPIREConfig

	mu       sync.Mutex // guards the rest
	identity *identity
	conn     *grpc.ClientConn
	renewAt  time.Time
}

// identity is what the Workload API answered once. It implements [mtls.Source].
type identity struct {
	svid    *x509svid.SVID
	bundles *x509bundle.Set
}

// SVID implements [mtls.Source].
func (i *identity) SVID() (*x509svid.SVID, error) { return i.svid, nil }

// Bundle implements [mtls.Source].
func (i *identity) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return i.bundles.GetX509BundleForTrustDomain(td)
}

func (l *link) address() string {
	return net.JoinHostPort(l.cfg.ServerAddress, strconv.Itoa(l.cfg.ServerPort))
}

// call makes one call. A connection that doesn't work is made anew, with a fresh
// identity, for the next one.
func (l *link) call(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := l.connection(ctx)
	if err != nil {
		return err
	}
	err = do(ctx, conn)
	switch status.Code(err) {
	case codes.Unavailable, codes.Unauthenticated, codes.PermissionDenied, codes.DeadlineExceeded:
		l.drop(conn)
	}
	return err
}

// connection returns the one there is, or makes it with the SVID of now.
func (l *link) connection(ctx context.Context) (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	if l.conn != nil && now.Before(l.renewAt) {
		return l.conn, nil
	}
	id, err := l.fetch(ctx)
	switch {
	case err != nil && l.conn != nil && now.Before(l.identity.svid.Certificates[0].NotAfter):
		return l.conn, nil // still good, and tried again with the next call
	case err != nil:
		return nil, fmt.Errorf("no SVID from the Workload API at %s: %w", l.cfg.WorkloadAPISocket, err)
	}
	server, err := spiffeid.FromSegments(l.cfg.TrustDomain, "spire", "server")
	if err != nil {
		return nil, err
	}
	creds := credentials.NewTLS(mtls.Client(id, mtls.Exactly(server), mtls.Options{Now: l.cfg.Now}))
	conn, err := grpc.NewClient("dns:///"+l.address(), grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, err
	}
	if l.conn != nil {
		l.conn.Close()
	}
	leaf := id.svid.Certificates[0]
	l.identity, l.conn = id, conn
	l.renewAt = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	return conn, nil
}

// fetch asks the Workload API once.
func (l *link) fetch(ctx context.Context) (*identity, error) {
	addr := l.cfg.WorkloadAPISocket
	if strings.HasPrefix(addr, "/") {
		addr = "unix://" + addr
	}
	// The parent may be unable to start without us: leave time for the rest.
	ctx, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	answer, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(addr))
	if err != nil {
		return nil, err
	}
	svid := answer.DefaultSVID()
	if !svid.ID.MemberOf(l.cfg.TrustDomain) {
		return nil, fmt.Errorf("the SVID is %s: want one of trust domain %q", svid.ID, l.cfg.TrustDomain.Name())
	}
	return &identity{svid: svid, bundles: answer.Bundles}, nil
}

// drop forgets conn, if it is still the one in use.
func (l *link) drop(conn *grpc.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn.Close()
		l.conn = nil
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}
