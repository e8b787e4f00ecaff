// Package spiretest owns an issuer for tests: the part of the SPIRE server API
// that agents call, over real gRPC and TLS, with a throwaway authority and
// switches for what can go wrong. It keeps nothing on disk and is for tests only.
package spiretest

import (
	"context"
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
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
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

	mu sync.Mutex
	Switches
	bundle    *x509bundle.Bundle
	federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	jwt       jwtKeys
	svid      *x509svid.SVID
	tokens    map[string]*token
	agents    map[spiffeid.ID]*agent
	nodeKeys  map[[32]byte]spiffeid.ID // bound by join_key
	posted    []*agentv1.PostStatusRequest
	sequence  uint64 // of the bundle
	entries   map[string]registration.Entry
	calls     map[string]int // by short method name
	batches   []int          // sizes of signing requests that were answered
	moved     chan struct{}  // closed and replaced at each call
	server    *grpc.Server
	serving   sync.WaitGroup
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
}

// New starts an issuer of trust domain td that ends with the test.
func New(t testing.TB, td string) *Server {
	t.Helper()
	ca := testca.New(t, td)
	s := &Server{
		t: t, CA: ca, Addr: "127.0.0.1:0",
		bundle:    ca.Bundle(),
		federated: make(map[spiffeid.TrustDomain]*x509bundle.Bundle),
		svid:      ca.SVID(t, "spiffe://"+td+"/spire/server"),
		tokens:    make(map[string]*token),
		agents:    make(map[spiffeid.ID]*agent),
		nodeKeys:  make(map[[32]byte]spiffeid.ID),
		sequence:  1,
		entries:   make(map[string]registration.Entry),
		calls:     make(map[string]int),
		moved:     make(chan struct{}),
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
	s.mu.Unlock()
	server := grpc.NewServer(
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age}),
		grpc.Creds(credentials.NewTLS(tlsConfig)),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	agentv1.RegisterAgentServer(server, agentService{s: s})
	bundlev1.RegisterBundleServer(server, bundleService{s: s})
	entryv1.RegisterEntryServer(server, entryService{s: s})
	svidv1.RegisterSVIDServer(server, svidService{s: s})
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

// Put creates or replaces an entry; its revision is the caller's to raise.
func (s *Server) Put(entries ...registration.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		s.entries[e.ID] = e
	}
}

// Delete removes an entry.
func (s *Server) Delete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, id)
}

// AddAuthority adds a new authority to the bundle.
func (s *Server) AddAuthority() {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.bundle.Clone()
	next.AddX509Authority(testca.New(s.t, s.CA.TrustDomain.Name()).Cert)
	s.bundle = next
	s.sequence++
}

// Federate makes a bundle of another trust domain known.
func (s *Server) Federate(b *x509bundle.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.federated[b.TrustDomain()] = b
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
