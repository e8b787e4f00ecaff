package nodeagent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

const (
	publicMode = 0o777 // callers are told apart by who they are, not by the file
	adminMode  = 0o600
	// drain is how long calls may take to end once their streams were told to.
	drain = 2 * time.Second
	// ioBuffer is gRPC's buffer per connection and direction, in bytes. Idle
	// streams keep it; answers are a few KiB.
	ioBuffer = 4 << 10
	// What one caller may make the agent hold. gRPC's own limits are made for
	// callers one trusts: any number of streams, with 16 MiB of metadata each.
	maxStreams = 1000     // per connection; an Envoy has one for each secret
	maxHeaders = 16 << 10 // bytes
	maxRequest = 1 << 20  // bytes; an Envoy's node message is 60 KB, and metadata
)

// servers are the agent's sockets and what is served on them.
type servers struct {
	health    *health.Server
	endpoints []endpoint
	wg        sync.WaitGroup
	failed    chan struct{} // closed when one ends by itself
	failOnce  sync.Once

	mu  sync.Mutex
	err error
}

type endpoint struct {
	listener *net.UnixListener
	server   *grpc.Server
}

// bind binds all sockets or none.
func bind(cfg Config, service *workloadapi.Service) (*servers, error) {
	s := &servers{health: health.NewServer(), failed: make(chan struct{})}
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)

	public := grpc.NewServer(
		grpc.Creds(workloadattest.NewCredentials(workloadattest.CredentialsOptions{Log: cfg.Log})),
		grpc.ForceServerCodecV2(workloadapi.NewCodec()),
		grpc.UnaryInterceptor(service.UnaryInterceptor),
		grpc.StreamInterceptor(service.StreamInterceptor),
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxRequest),
		// An Envoy may be told to ping; on a local socket that costs nothing.
		// By default whoever pings twice in 5 minutes is disconnected.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	service.Register(public)
	healthpb.RegisterHealthServer(public, s.health)
	for _, register := range cfg.Services {
		register(public, service)
	}
	if err := s.listen(cfg.SocketPath, publicMode, public); err != nil {
		return nil, err
	}
	if cfg.AdminSocketPath == "" {
		return s, nil
	}
	admin := grpc.NewServer(grpc.Creds(insecure.NewCredentials()))
	healthpb.RegisterHealthServer(admin, s.health)
	if err := s.listen(cfg.AdminSocketPath, adminMode, admin); err != nil {
		return nil, errors.Join(err, s.endpoints[0].listener.Close())
	}
	return s, nil
}

func (s *servers) listen(path string, mode fs.FileMode, server *grpc.Server) error {
	l, err := unixsock.Listen(path, mode)
	if err != nil {
		return err
	}
	s.endpoints = append(s.endpoints, endpoint{listener: l, server: server})
	return nil
}

func (s *servers) addrs() Addrs {
	a := Addrs{Socket: s.endpoints[0].listener.Addr()}
	if len(s.endpoints) > 1 {
		a.AdminSocket = s.endpoints[1].listener.Addr()
	}
	return a
}

func (s *servers) serve() {
	for _, e := range s.endpoints {
		s.wg.Go(func() {
			if err := e.server.Serve(e.listener); err != nil {
				s.mu.Lock()
				s.err = errors.Join(s.err, fmt.Errorf("socket %s: %w", e.listener.Addr(), err))
				s.mu.Unlock()
				s.failOnce.Do(func() { close(s.failed) })
			}
		})
	}
}

// healthy makes health checks succeed.
func (s *servers) healthy() {
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
}

// stop closes the sockets, gives calls a moment to end, and ends them.
func (s *servers) stop() error {
	s.health.Shutdown()
	var stopped sync.WaitGroup
	for _, e := range s.endpoints {
		stopped.Go(func() {
			force := time.AfterFunc(drain, e.server.Stop)
			defer force.Stop()
			e.server.GracefulStop()
		})
	}
	stopped.Wait()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
