package issuer_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/issuer"
)

// running is an issuer in the background of a test.
type running struct {
	t     *testing.T
	addrs issuer.Addrs
	stop  func() error
}

// newConfig is an issuer on a fresh directory, logging to the buffer.
func newConfig(t *testing.T) (issuer.Config, *logBuffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	log := &logBuffer{}
	return issuer.Config{
		TrustDomain: td,
		DataDir:     filepath.Join(dir, "data"),
		SocketPath:  filepath.Join(dir, "run", "api.sock"),
		Log:         slog.New(slog.NewTextHandler(log, nil)),
	}, log
}

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

// start runs an issuer until stop is called, and returns when it is ready.
func start(t *testing.T, cfg issuer.Config) *running {
	t.Helper()
	ready := make(chan issuer.Addrs, 1)
	cfg.Ready = func(a issuer.Addrs) { ready <- a }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- issuer.Run(ctx, cfg) }()
	r := &running{t: t, stop: sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}
	t.Cleanup(func() { r.stop() })
	select {
	case r.addrs = <-ready:
	case err := <-ended:
		t.Fatalf("Run = %v before it was ready", err)
	}
	return r
}

func (r *running) local() *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("unix:"+r.addrs.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// bundle returns the bundle as the admin socket has it.
func (r *running) bundle() *x509bundle.Bundle {
	r.t.Helper()
	resp, err := bundlev1.NewBundleClient(r.local()).GetBundle(r.t.Context(), &bundlev1.GetBundleRequest{})
	must(r.t, err)
	bundle := x509bundle.New(td)
	for _, authority := range resp.X509Authorities {
		cert, err := x509.ParseCertificate(authority.Asn1)
		must(r.t, err)
		bundle.AddX509Authority(cert)
	}
	return bundle
}

// anonymous is an mtls.Source of a client that has only a bundle.
type anonymous struct{ bundle *x509bundle.Bundle }

func (a anonymous) SVID() (*x509svid.SVID, error) { return nil, mtls.ErrNoPeerCertificate }
func (a anonymous) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return a.bundle.GetX509BundleForTrustDomain(td)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
