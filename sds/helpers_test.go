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

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
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
