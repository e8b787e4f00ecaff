package nodeagent_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// An issuer that is away at the start is no reason to end: Unavailable, and
// then all is well.
func TestStartsWhileTheIssuerIsAway(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	first := start(t, cfg)
	if _, err := first.fetch(t); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	cfg.JoinToken = ""
	if err := os.Remove(filepath.Join(cfg.DataDir, keep.Name)); err != nil {
		t.Fatal(err)
	}
	a := start(t, cfg)
	if _, err := workloadapi.FetchX509Context(t.Context(), a.addr()); status.Code(err) != codes.Unavailable {
		t.Errorf("before the first sync: %v", err)
	}
	health := healthpb.NewHealthClient(a.dial(t, cfg.SocketPath))
	if resp, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || resp.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v, %v", resp, err)
	}
	s.Start()
	if _, err := a.fetch(t); err != nil {
		t.Errorf("after the issuer's return: %v", err)
	}
}

// What an agent knew it serves after a restart too, in the issuer's absence, and
// until it hears otherwise.
func TestServesWhatWasKeptUntilTheIssuerIsThere(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	first := start(t, cfg)
	before, err := first.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	cfg.JoinToken = ""
	a := start(t, cfg)
	kept, err := workloadapi.FetchX509Context(t.Context(), a.addr())
	if err != nil {
		t.Fatalf("with what was kept: %v", err)
	}
	if got, want := kept.DefaultSVID().Certificates[0], before.DefaultSVID().Certificates[0]; !got.Equal(want) {
		t.Errorf("got %s of serial %s, want the one of before the restart, %s", kept.DefaultSVID().ID, got.SerialNumber, want.SerialNumber)
	}
	a.awaitHealthy(t)
	u := watch(t, a)
	s.Put(own(s, "tok", "b"))
	s.Start()
	u.await(t, "what changed meanwhile", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 2 })
}

func TestKeepsServingWhileTheIssuerIsAway(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	if _, err := a.fetch(t); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := workloadapi.FetchX509Context(t.Context(), a.addr()); err != nil {
		t.Error(err)
	}
	s.Put(own(s, "tok", "b"))
	s.Start()
	u := watch(t, a)
	u.await(t, "what changed meanwhile", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 2 })
}

func TestStoppingEndsStreamsAsUnavailable(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true")
	stream, err := workloadpb.NewSpiffeWorkloadAPIClient(a.dial(t, a.cfg.SocketPath)).FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	// go-spiffe's clients stop for good on Canceled.
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("got %v", err)
	}
}

func TestEndsWhenItIsRefused(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	s.Ban(s.AgentID("tok"))
	<-a.done
	if _, ok := errors.AsType[*upstream.RefusedError](a.err); !ok || strings.Contains(a.err.Error(), "\n") {
		t.Errorf("ended with %v", a.err)
	}
	if _, err := net.Dial("unix", a.cfg.SocketPath); err == nil {
		t.Error("the socket is served still")
	}
	if _, err := os.Stat(filepath.Join(a.cfg.DataDir, keep.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("workloads' SVIDs are still on the disk: %v", err)
	}
}

func TestDoesNotStart(t *testing.T) {
	s := spiretest.New(t, "example.org")
	running := start(t, config(t, s, s.Token("tok", time.Hour)))
	running.awaitHealthy(t)
	foreign, err := testca.New(t, "other.org").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	joins := s.Calls("AttestAgent")
	for name, test := range map[string]struct {
		change func(*nodeagent.Config)
		want   string
	}{
		"no token":           {func(c *nodeagent.Config) { c.JoinToken = "" }, "has no join token"},
		"socket in use":      {func(c *nodeagent.Config) { c.SocketPath = running.cfg.SocketPath }, "in use by pid"},
		"admin socket taken": {func(c *nodeagent.Config) { c.AdminSocketPath = running.cfg.SocketPath }, "in use by pid"},
		"data_dir in use":    {func(c *nodeagent.Config) { c.DataDir = running.cfg.DataDir }, "agent.lock is in use by another process"},
		"foreign bundle":     {func(c *nodeagent.Config) { c.TrustBundle = foreign }, `of trust domain "other.org"`},
		"bundle is a key": {func(c *nodeagent.Config) {
			c.TrustBundle = []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
		}, "has no certificate"},
		"no bundle": {func(c *nodeagent.Config) { c.TrustBundle = nil }, "no trust bundle"},
		"bundle file": {func(c *nodeagent.Config) {
			c.TrustBundle, c.TrustBundlePath = nil, "/nowhere/bundle.pem"
		}, "/nowhere/bundle.pem"},
		"bad token":   {func(c *nodeagent.Config) { c.JoinToken = "a/b" }, "join token must be"},
		"bad address": {func(c *nodeagent.Config) { c.ServerAddress = "nowhere" }, "want host:port"},
		"key type":    {func(c *nodeagent.Config) { c.WorkloadKeyType = "dsa" }, "ec-p256, ec-p384"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, s, s.Token("another", time.Hour))
			test.change(&cfg)
			a := start(t, cfg)
			<-a.done
			if a.err == nil || !strings.Contains(a.err.Error(), test.want) || strings.Contains(a.err.Error(), "\n") {
				t.Errorf("%v, want %s", a.err, test.want)
			}
			if _, err := os.Stat(filepath.Join(cfg.DataDir, "keys.json")); cfg.DataDir != running.cfg.DataDir && err == nil {
				t.Error("something was written")
			}
		})
	}
	if s.Calls("AttestAgent") != joins {
		t.Error("a token was shown")
	}
}

func TestReplacesAStaleSocket(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	if err := os.MkdirAll(filepath.Dir(cfg.SocketPath), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.SocketPath, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := start(t, cfg).fetch(t); err != nil {
		t.Error(err)
	}
}
