package sds

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

const (
	ownID     = "spiffe://one.test/web"
	secondID  = "spiffe://one.test/batch"
	ownDomain = "spiffe://one.test"
	farDomain = "spiffe://two.test"
)

// scriptedSource answers every watch from what set or fail said last.
type scriptedSource struct {
	mu      sync.Mutex
	moved   *sync.Cond
	now     said
	turn    int
	active  map[*int]bool // the turn each watch has delivered
	watches int
}

type said struct {
	context *workload.X509Context
	err     error
}

func newSource() *scriptedSource {
	s := &scriptedSource{active: make(map[*int]bool)}
	s.moved = sync.NewCond(&s.mu)
	return s
}

func (s *scriptedSource) set(c *workload.X509Context) { s.put(said{context: c}) }
func (s *scriptedSource) fail(err error)              { s.put(said{err: err}) }

// put returns when every watch has delivered it.
func (s *scriptedSource) put(what said) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = what
	s.turn++
	s.moved.Broadcast()
	for s.behind() {
		s.moved.Wait()
	}
}

func (s *scriptedSource) behind() bool {
	for turn := range s.active {
		if *turn < s.turn {
			return true
		}
	}
	return false
}

func (s *scriptedSource) WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.moved.Broadcast()
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moved.Broadcast()
	})()
	s.watches++
	var delivered int
	s.active[&delivered] = true
	defer delete(s.active, &delivered)
	for {
		what, turn := s.now, s.turn
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case delivered == turn:
			s.moved.Wait()
			continue
		case what.err != nil:
			return what.err
		}
		if what.context != nil {
			s.mu.Unlock()
			err := update(what.context)
			s.mu.Lock()
			if err != nil {
				return err
			}
		}
		delivered = turn
		s.moved.Broadcast()
	}
}

// contextOf makes an X509Context of SVIDs and the CAs' bundles.
func contextOf(svids []*x509svid.SVID, cas ...*testca.CA) *workload.X509Context {
	bundles := make(map[spiffeid.TrustDomain]*x509bundle.Bundle)
	for _, ca := range cas {
		bundles[ca.TrustDomain] = ca.Bundle()
	}
	return &workload.X509Context{SVIDs: svids, Bundles: bundles}
}

// serveSource serves src to the returned client until the test ends, and checks
// that no stream and no key is left then.
func serveSource(t testing.TB, src Source, opts Options) secretv3.SecretDiscoveryServiceClient {
	t.Helper()
	svc := newService(src, opts)
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	secretv3.RegisterSecretDiscoveryServiceServer(srv, svc)
	l := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	check(t, err)
	t.Cleanup(func() {
		conn.Close()
		srv.Stop()
		serving.Wait()
		if n := len(svc.catalogs.in); n != 0 {
			t.Errorf("%d catalogs are held after the last stream ended", n)
		}
	})
	return secretv3.NewSecretDiscoveryServiceClient(conn)
}

// sotwClient is a state-of-the-world client that remembers what it must echo.
type sotwClient struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	last   *discoveryv3.DiscoveryResponse
}

func dialSotW(t testing.TB, client secretv3.SecretDiscoveryServiceClient) *sotwClient {
	t.Helper()
	stream, err := client.StreamSecrets(t.Context())
	check(t, err)
	return &sotwClient{t: t, stream: stream}
}

func (c *sotwClient) send(req *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	check(c.t, c.stream.Send(req))
}

// want subscribes, or acknowledges with a new subscription.
func (c *sotwClient) want(names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "test"}, TypeUrl: secretType, ResourceNames: names,
		VersionInfo: c.last.GetVersionInfo(), ResponseNonce: c.last.GetNonce(),
	})
}

func (c *sotwClient) reject(message string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: secretType, ResourceNames: names, ResponseNonce: c.last.GetNonce(),
		ErrorDetail: &rpcstatus.Status{Code: int32(codes.Internal), Message: message},
	})
}

// next receives a response and returns its secrets by name.
func (c *sotwClient) next() map[string]*tlsv3.Secret {
	c.t.Helper()
	resp, err := c.stream.Recv()
	check(c.t, err)
	if resp.GetNonce() == "" || resp.GetNonce() == c.last.GetNonce() {
		c.t.Fatalf("nonce %q after %q", resp.GetNonce(), c.last.GetNonce())
	}
	c.last = resp
	return secretsOf(c.t, resp.GetResources())
}

// deltaClient is an incremental client.
type deltaClient struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	last   *discoveryv3.DeltaDiscoveryResponse
}

func dialDelta(t testing.TB, client secretv3.SecretDiscoveryServiceClient) *deltaClient {
	t.Helper()
	stream, err := client.DeltaSecrets(t.Context())
	check(t, err)
	return &deltaClient{t: t, stream: stream}
}

func (c *deltaClient) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	check(c.t, c.stream.Send(req))
}

func (c *deltaClient) subscribe(names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "test"}, ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack() {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: c.last.GetNonce()})
}

func (c *deltaClient) next() (secrets map[string]*tlsv3.Secret, removed []string) {
	c.t.Helper()
	resp, err := c.stream.Recv()
	check(c.t, err)
	if resp.GetNonce() == "" || resp.GetNonce() == c.last.GetNonce() {
		c.t.Fatalf("nonce %q after %q", resp.GetNonce(), c.last.GetNonce())
	}
	c.last = resp
	var bodies []*anypb.Any
	for _, r := range resp.GetResources() {
		bodies = append(bodies, r.GetResource())
	}
	return secretsOf(c.t, bodies), resp.GetRemovedResources()
}

// expect receives a response and compares the names in it.
func (c *deltaClient) expect(changed, removed []string) map[string]*tlsv3.Secret {
	c.t.Helper()
	secrets, gone := c.next()
	if diff := cmp.Diff(changed, namesOf(secrets)); diff != "" {
		c.t.Fatalf("changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(removed, gone); diff != "" {
		c.t.Fatalf("removed (-want +got):\n%s", diff)
	}
	return secrets
}

func secretsOf(t testing.TB, bodies []*anypb.Any) map[string]*tlsv3.Secret {
	t.Helper()
	out := make(map[string]*tlsv3.Secret)
	for _, body := range bodies {
		secret := new(tlsv3.Secret)
		check(t, body.UnmarshalTo(secret))
		check(t, secret.ValidateAll())
		out[secret.GetName()] = secret
	}
	return out
}

func namesOf(secrets map[string]*tlsv3.Secret) []string {
	var names []string
	for name := range secrets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func wantNames(t testing.TB, got map[string]*tlsv3.Secret, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, namesOf(got)); diff != "" {
		t.Fatalf("names (-want +got):\n%s", diff)
	}
}

func leafOf(t testing.TB, s *tlsv3.Secret) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
	if block == nil {
		t.Fatalf("secret %q has no certificate", s.GetName())
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	return cert
}

func wantCode(t testing.TB, err error, code codes.Code, contains string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), contains) {
		t.Fatalf("got %v, want code %v and %q", err, code, contains)
	}
}

func wantDomains(t testing.TB, s *tlsv3.Secret, want ...string) {
	t.Helper()
	config := new(tlsv3.SPIFFECertValidatorConfig)
	check(t, s.GetValidationContext().GetCustomValidatorConfig().GetTypedConfig().UnmarshalTo(config))
	var got []string
	for _, td := range config.GetTrustDomains() {
		got = append(got, td.GetName())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("trust domains of %s (-want +got):\n%s", s.GetName(), diff)
	}
}

func wantLogged(t testing.TB, log *logBuffer, text string, times int) {
	t.Helper()
	if n := strings.Count(log.String(), text); n != times {
		t.Errorf("%q is logged %d times, want %d:\n%s", text, n, times, log)
	}
}

// logBuffer collects log records as text.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
