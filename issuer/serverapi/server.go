package serverapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
)

// Limits of the listeners.
const (
	// maxConnectionAge makes agents spread over issuers again; they reconnect.
	maxConnectionAge = 3 * time.Minute
	// maxConnectionGrace bounds streams beyond that, stalled ones too.
	maxConnectionGrace = time.Minute
	// drain bounds the calls in progress when the server stops.
	drain = 10 * time.Second
	// maxMessage is gRPC's default on both ends, in bytes.
	maxMessage       = 4 << 20
	maxHeaders       = 64 << 10
	maxStreams       = 1000 // of one connection at a time
	handshakeTimeout = 15 * time.Second
)

// Server serves the API on a TCP listener with TLS and on the admin socket.
type Server struct {
	deps    Deps
	tcp     *grpc.Server
	local   *grpc.Server
	changes *ChangesService
}

// New returns a Server that has not started.
func New(d Deps) *Server {
	d.setDefaults()
	guard := newGuard(d)
	s := &Server{
		deps:    d,
		changes: newChangesService(guard),
		tcp:     newServer(guard, false, grpc.Creds(serverCreds{credentials.NewTLS(tlsConfig(guard)), guard, d.Log})),
		local:   newServer(guard, true, grpc.Creds(localCreds{})),
	}
	for _, srv := range []*grpc.Server{s.tcp, s.local} {
		agentv1.RegisterAgentServer(srv, NewAgentService(d))
		bundlev1.RegisterBundleServer(srv, NewBundleService(d))
		entryv1.RegisterEntryServer(srv, NewEntryService(d))
		svidv1.RegisterSVIDServer(srv, NewSVIDService(d))
		trustdomainv1.RegisterTrustDomainServer(srv, NewTrustDomainService(d))
		localauthorityv1.RegisterLocalAuthorityServer(srv, NewLocalAuthorityService(d))
	}
	changesv1.RegisterChangesServer(s.tcp, s.changes)
	loggerv1.RegisterLoggerServer(s.local, NewLoggerService(d))
	debugv1.RegisterDebugServer(s.local, NewDebugService(d))
	operationsv1.RegisterOperationsServer(s.local, NewOperationsService(d))
	grpc_health_v1.RegisterHealthServer(s.local, &healthService{deps: d})
	return s
}

func newServer(guard *guard, local bool, opts ...grpc.ServerOption) *grpc.Server {
	g := &gate{guard: guard, local: local, deps: guard.deps}
	if !local {
		g.limits = newLimits(guard.deps.Limits)
	}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.InTapHandle(g.early),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		// No handler is left to find the store closed under it.
		grpc.WaitForHandlers(true),
		// Ten thousand idle agents keep their read buffers.
		grpc.ReadBufferSize(4 << 10),
		ages(maxConnectionAge),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             10 * time.Second,
			PermitWithoutStream: true,
		}),
	}, opts...)...)
}

// ages ends connections that are that old: what is in progress on them goes on.
func ages(age time.Duration) grpc.ServerOption {
	return grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      age,
		MaxConnectionAgeGrace: maxConnectionGrace,
		Time:                  time.Minute, // how long a silent peer is believed
		Timeout:               20 * time.Second,
	})
}

// Serve serves both listeners, which it closes, until ctx is done; then it
// stops accepting, lets calls in progress end for 10 s at most, and returns
// nil. It returns an error if a listener fails.
func (s *Server) Serve(ctx context.Context, tcp, local net.Listener) error {
	var serving sync.WaitGroup
	failed := make(chan error, 2)
	serve := func(srv *grpc.Server, l net.Listener) {
		s.deps.Log.Info("Starting Server APIs", "address", l.Addr().String(), "network", l.Addr().Network())
		serving.Go(func() {
			if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				failed <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
		})
	}
	serve(s.tcp, believeProxies(tcp, s.deps.ProxyProtocol))
	serve(s.local, local)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.stop()
	serving.Wait()
	return err
}

// stop drains both servers at once.
func (s *Server) stop() {
	s.changes.stop()
	force := time.AfterFunc(drain, func() {
		s.tcp.Stop()
		s.local.Stop()
	})
	defer force.Stop()
	var draining sync.WaitGroup
	draining.Go(s.tcp.GracefulStop)
	draining.Go(s.local.GracefulStop)
	draining.Wait()
}
