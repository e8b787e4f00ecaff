package nodeagent

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/lanyard-mtls/lanyard/nodeagent/adminapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/sockets"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

const (
	// drain is how long calls may take to end once their streams were told to.
	drain = 2 * time.Second
	// ioBuffer is gRPC's buffer per connection and direction, in bytes. Who sends
	// or reads slowly keeps one, an idle stream none; answers are a few KiB.
	ioBuffer = 4 << 10
	// What one caller may make the agent hold. gRPC's own limits are made for
	// callers one trusts: any number of streams, with 16 MiB of metadata each.
	maxStreams = 1000      // per connection; an Envoy has one for each secret
	maxHeaders = 16 << 10  // bytes
	maxRequest = 256 << 10 // bytes; an Envoy's node message is 60 KB, and metadata
)

// servers are what is served on the agent's sockets.
type servers struct {
	health    *health.Server // on the admin socket; workloads ask the service's
	endpoints []endpoint
	wg        sync.WaitGroup
	failed    chan struct{} // closed when one ends by itself
	failOnce  sync.Once

	mu  sync.Mutex
	err error
}

type endpoint struct {
	name     string
	listener net.Listener
	server   *grpc.Server
}

// serve serves on all sockets.
func (p *parts) serve(set *sockets.Set) *servers {
	s := &servers{health: health.NewServer(), failed: make(chan struct{})}
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	for _, spec := range p.cfg.specs() {
		server := p.public(spec.Name)
		if spec.Name == adminSocket {
			server = p.admin()
			healthpb.RegisterHealthServer(server, s.health)
		}
		s.add(endpoint{name: spec.Name, listener: set.Listener(spec.Name), server: server})
	}
	return s
}

// public serves what workloads call, on the socket of the name.
func (p *parts) public(name string) *grpc.Server {
	workload, _ := strings.CutPrefix(name, workloadPrefix)
	if name == publicSocket {
		workload = ""
	}
	server := grpc.NewServer(
		grpc.Creds(workloadattest.NewCredentials(workloadattest.CredentialsOptions{Log: p.cfg.Log, Socket: workload, Limits: p.limits})),
		grpc.InTapHandle(p.limits.Tap),
		grpc.ForceServerCodecV2(workloadapi.NewCodec()),
		grpc.UnaryInterceptor(p.service.UnaryInterceptor),
		grpc.ChainStreamInterceptor(p.metrics.StreamInterceptor, p.service.StreamInterceptor),
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxRequest),
		// An Envoy may be told to ping; on a local socket that costs nothing.
		// By default whoever pings twice in 5 minutes is disconnected.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	if !p.cfg.DisableWorkloadAPI {
		p.service.Register(server)
	}
	for _, register := range p.cfg.Services {
		register(server, p.service)
	}
	workloadapi.RegisterEndpoint(server, p.service.NewHealth(p.attestor.AttestPID, p.cfg.DisableWorkloadAPI))
	return server
}

// admin serves what the operator calls, and delegates.
func (p *parts) admin() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(workloadattest.NewCredentials(workloadattest.CredentialsOptions{Log: p.cfg.Log, Limits: p.limits})),
		grpc.InTapHandle(p.limits.Tap),
		grpc.StreamInterceptor(p.metrics.StreamInterceptor),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxRequest),
	)
	adminapi.Register(server, p.adminAPI())
	return server
}

func (s *servers) add(e endpoint) {
	s.endpoints = append(s.endpoints, e)
	s.wg.Go(func() {
		if err := e.server.Serve(e.listener); err != nil {
			s.mu.Lock()
			s.err = errors.Join(s.err, fmt.Errorf("socket %s: %w", e.listener.Addr(), err))
			s.mu.Unlock()
			s.failOnce.Do(func() { close(s.failed) })
		}
	})
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
