// Package spiretest owns an issuer for tests: the part of the SPIRE server API
// that agents call, over real gRPC and TLS, with a throwaway authority and
// switches for what can go wrong. It keeps nothing on disk and is for tests only.
package spiretest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// Server is an issuer. Its switches may be changed with [Server.Set] while it
// runs.
type Server struct {
	t  testing.TB
	CA *testca.CA
	// Addr is host:port, the same after a restart.
	Addr string

	*world
	// The rest is guarded by world.mu too.
	Switches
	svid    *x509svid.SVID
	posted  []*agentv1.PostStatusRequest
	calls   map[string]int // by short method name
	batches []int          // sizes of signing requests that were answered
	moved   chan struct{}  // closed and replaced at each call
	server  *grpc.Server
	serving sync.WaitGroup
}

// Switches are what tests vary. Durations of 0 are an hour.
type Switches struct {
	AgentTTL, SVIDTTL time.Duration
	// PageSize is how many entries SyncAuthorizedEntries has in a page; 0: 500.
	PageSize int
	// MaxBatch refuses larger signing requests with ResourceExhausted; 0: none.
	MaxBatch int
	// NoSync leaves out SyncAuthorizedEntries.
	NoSync bool
	// LoseJoins is how many answers of AttestAgent are lost after the token is
	// spent.
	LoseJoins int
	// MaxConnectionAge, set before a start, is when connections are told to go
	// away; 0: never.
	MaxConnectionAge time.Duration
	// LoseRenewals forgets renewals that were answered.
	LoseRenewals bool
	// NoStatus leaves out PostStatus, and NoJoinKey the join_key attestation.
	NoStatus, NoJoinKey bool
	// Refuse, if set, answers attempts to join by x509pop.
	Refuse error
	// Fail, if set, answers every call but those of Watch.
	Fail error
	// NotReattestable tells agents that attest by challenge to renew instead.
	NotReattestable bool
	// Curves, set before a start, are the key exchanges of TLS; nil: Go's.
	Curves []tls.CurveID
	Pushing
}

// New starts an issuer of trust domain td that ends with the test.
func New(t testing.TB, td string) *Server {
	t.Helper()
	ca := testca.New(t, td)
	return serve(t, ca, newWorld(ca))
}

// Twin starts another issuer with the same authority, agents, entries and bundles,
// and switches of its own, that ends with the test.
func (s *Server) Twin() *Server {
	s.t.Helper()
	return serve(s.t, s.CA, s.world)
}

func serve(t testing.TB, ca *testca.CA, w *world) *Server {
	t.Helper()
	s := &Server{
		t: t, CA: ca, Addr: "127.0.0.1:0", world: w,
		svid:  ca.SVID(t, "spiffe://"+ca.TrustDomain.Name()+"/spire/server"),
		calls: make(map[string]int),
		moved: make(chan struct{}),
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start serves, on the same address as before.
func (s *Server) Start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	tlsConfig := mtls.ServerOptional(source{s}, mtls.Any, mtls.Options{NextProtos: []string{"h2"}, DisableTickets: true})
	s.mu.Lock()
	age := s.MaxConnectionAge
	curves := s.Curves
	s.mu.Unlock()
	inner := tlsConfig.GetConfigForClient
	tlsConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg, err := inner(hello)
		if err == nil && curves != nil {
			cfg = cfg.Clone()
			cfg.CurvePreferences = curves
		}
		return cfg, err
	}
	server := grpc.NewServer(
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: age}),
		grpc.Creds(credentials.NewTLS(tlsConfig)),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	agentv1.RegisterAgentServer(server, agentService{s: s})
	bundlev1.RegisterBundleServer(server, bundleService{s: s})
	entryv1.RegisterEntryServer(server, entryService{s: s})
	svidv1.RegisterSVIDServer(server, svidService{s: s})
	changesv1.RegisterChangesServer(server, changesService{s: s})
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	s.serving.Go(func() { server.Serve(l) })
}

// Stop ends all connections at once, as a killed process does.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	server.Stop()
	s.serving.Wait()
}

// Set changes switches.
func (s *Server) Set(change func(*Switches)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.Switches)
	s.wake()
}

// Calls returns how often a method was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Batches returns the sizes of the signing requests that were answered.
func (s *Server) Batches() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.batches...)
}

// Await returns when cond is true; it is tried at each call of an agent. It fails
// the test after a minute.
func (s *Server) Await(what string, cond func() bool) {
	s.t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-moved:
		case <-timeout.C:
			s.t.Fatalf("waited a minute for: %s", what)
		}
	}
}

// source is the issuer's identity in TLS.
type source struct{ s *Server }

func (src source) SVID() (*x509svid.SVID, error) { return src.s.svid, nil }

func (src source) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	src.s.mu.Lock()
	defer src.s.mu.Unlock()
	return src.s.bundle.GetX509BundleForTrustDomain(td)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.admit(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}
