package nodeagent_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

// agent is one that runs until the test's end, or stop.
type agent struct {
	addrs  nodeagent.Addrs
	cfg    nodeagent.Config
	log    *buffer
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// buffer collects a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func config(t *testing.T, s *spiretest.Server, token string) nodeagent.Config {
	t.Helper()
	pem, err := s.CA.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	return nodeagent.Config{
		TrustDomain: s.CA.TrustDomain, DataDir: filepath.Join(t.TempDir(), "data"), ServerAddress: s.Addr,
		SocketPath: filepath.Join(dir, "public", "api.sock"), AdminSocketPath: filepath.Join(dir, "admin.sock"),
		JoinToken: token, TrustBundle: pem, SyncInterval: 20 * time.Millisecond,
	}
}

// start returns when the agent serves, or has ended.
func start(t *testing.T, cfg nodeagent.Config) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{log: new(buffer), cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	cfg.Log = slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Ready = func(addrs nodeagent.Addrs) { a.addrs = addrs; close(ready) }
	a.cfg = cfg
	go func() {
		defer close(a.done)
		a.err = nodeagent.Run(ctx, cfg)
	}()
	t.Cleanup(func() { a.stop() })
	select {
	case <-ready:
	case <-a.done:
	}
	return a
}

// stop returns what Run returned.
func (a *agent) stop() error {
	a.cancel()
	<-a.done
	return a.err
}

func (a *agent) addr() workloadapi.ClientOption {
	return workloadapi.WithAddr("unix://" + a.cfg.SocketPath)
}

func (a *agent) dial(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fetch waits until the agent has synced.
func (a *agent) fetch(t *testing.T) (*workloadapi.X509Context, error) {
	t.Helper()
	a.awaitHealthy(t)
	return workloadapi.FetchX509Context(t.Context(), a.addr())
}

// awaitHealthy returns when the agent says that it serves.
func (a *agent) awaitHealthy(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := healthpb.NewHealthClient(a.dial(t, a.cfg.AdminSocketPath)).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("health: %v; log:\n%s", err, a.log)
		}
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			return
		}
	}
}

// own is an entry for this very process.
func own(s *spiretest.Server, token, id string) registration.Entry {
	return registration.Entry{
		ID: id, SPIFFEID: spiffeid.RequireFromPath(s.CA.TrustDomain, "/"+id), ParentID: s.AgentID(token),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:" + strconv.Itoa(os.Geteuid())}},
	}
}
