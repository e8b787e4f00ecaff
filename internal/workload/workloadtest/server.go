// Package workloadtest owns a Workload API for tests: the real protocol on a
// real socket, with answers that the test dictates. It attests nobody.
package workloadtest

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Server is a Workload API that serves FetchX509SVID.
type Server struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer
	network, address string

	mu       sync.Mutex
	grpc     *grpc.Server                 // nil while stopped
	served   sync.WaitGroup               // the goroutine in grpc.Serve
	answer   *workloadpb.X509SVIDResponse // sent at once and at each change
	err      error                        // ends every stream instead
	changed  chan struct{}
	calls    int
	newCalls chan struct{} // one token per call, for WaitCall
}

// New returns a server that is not started yet, with a UNIX socket of its own.
func New(t testing.TB) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{network: "unix", address: filepath.Join(dir, "api.sock"), changed: make(chan struct{}),
		newCalls: make(chan struct{}, 1<<16)}
	t.Cleanup(func() {
		s.Stop()
		os.RemoveAll(dir)
	})
	return s
}

// Start returns a server that is started and serves svids and bundles.
func Start(t testing.TB, svids []*x509svid.SVID, bundles ...*x509bundle.Bundle) *Server {
	t.Helper()
	s := New(t)
	s.Set(t, svids, bundles...)
	s.Start(t)
	return s
}

// Addr is the server's address as a URI; it stays the same over restarts.
func (s *Server) Addr() string { return s.network + "://" + s.address }

// Start listens and serves.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	l, err := net.Listen(s.network, s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	server := grpc.NewServer()
	workloadpb.RegisterSpiffeWorkloadAPIServer(server, s)
	s.grpc = server
	s.served.Go(func() { server.Serve(l) })
}

// Stop ends all streams and removes the socket; Start may follow.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.grpc
	s.grpc = nil
	s.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	s.served.Wait()
}

// Set makes svids and bundles the answer: the bundle of an SVID's own trust
// domain goes with it, the others are federated ones.
func (s *Server) Set(t testing.TB, svids []*x509svid.SVID, bundles ...*x509bundle.Bundle) {
	t.Helper()
	s.SetRaw(Response(t, svids, bundles...))
}

// SetRaw makes resp the answer, whatever it holds.
func (s *Server) SetRaw(resp *workloadpb.X509SVIDResponse) {
	s.change(func() { s.answer, s.err = resp, nil })
}

// Fail ends every stream, open ones and new ones, with a status of code.
func (s *Server) Fail(code codes.Code) {
	s.change(func() { s.err = status.Error(code, "workloadtest") })
}

func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Calls is how many streams were opened so far.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// WaitCall returns once a further stream has been opened.
func (s *Server) WaitCall(ctx context.Context) error {
	select {
	case <-s.newCalls:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// FetchX509SVID implements the Workload API.
func (s *Server) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream grpc.ServerStreamingServer[workloadpb.X509SVIDResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	if v := md.Get("workload.spiffe.io"); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	s.newCalls <- struct{}{}
	var sent *workloadpb.X509SVIDResponse
	for {
		s.mu.Lock()
		answer, err, changed := s.answer, s.err, s.changed
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if answer != nil && answer != sent {
			if err := stream.Send(answer); err != nil {
				return err
			}
			sent = answer
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Response is the answer with svids and bundles, as Set serves it.
func Response(t testing.TB, svids []*x509svid.SVID, bundles ...*x509bundle.Bundle) *workloadpb.X509SVIDResponse {
	t.Helper()
	resp := &workloadpb.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	ders := map[string][]byte{}
	for _, b := range bundles {
		ders[b.TrustDomain().IDString()] = der(b.X509Authorities())
	}
	for _, svid := range svids {
		certs, key, err := svid.MarshalRaw()
		if err != nil {
			t.Fatal(err)
		}
		own := svid.ID.TrustDomain().IDString()
		resp.Svids = append(resp.Svids, &workloadpb.X509SVID{SpiffeId: svid.ID.String(), X509Svid: certs,
			X509SvidKey: key, Bundle: ders[own], Hint: svid.Hint})
	}
	for name, b := range ders {
		if len(svids) == 0 || name != svids[0].ID.TrustDomain().IDString() {
			resp.FederatedBundles[name] = b
		}
	}
	return resp
}

func der(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}
