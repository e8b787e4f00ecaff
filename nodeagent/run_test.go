package nodeagent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// agent is one that runs until the test's end, or stop.
type agent struct {
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
	cfg.Ready = func(nodeagent.Addrs) { close(ready) }
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
	stream, err := healthpb.NewHealthClient(a.dial(t, a.cfg.SocketPath)).Watch(ctx, &healthpb.HealthCheckRequest{})
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

func TestServesGoSPIFFE(t *testing.T) {
	s := spiretest.New(t, "example.org")
	other := testca.New(t, "other.org")
	s.Federate(other.Bundle())
	e := own(s, "tok", "web")
	e.Hint, e.FederatesWith = "external", []spiffeid.TrustDomain{other.TrustDomain}
	s.Put(e)
	cfg := config(t, s, s.Token("tok", time.Hour))
	a := start(t, cfg)
	got, err := a.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	svid := got.DefaultSVID()
	if svid.ID != e.SPIFFEID || svid.Hint != "external" || len(got.SVIDs) != 1 {
		t.Errorf("got %d SVIDs, %s, hint %q", len(got.SVIDs), svid.ID, svid.Hint)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, got.Bundles); err != nil {
		t.Error(err)
	}
	for _, want := range []*x509bundle.Bundle{s.CA.Bundle(), other.Bundle()} {
		if b, ok := got.Bundles.Get(want.TrustDomain()); !ok || !b.Equal(want) {
			t.Errorf("bundle of %s: %v", want.TrustDomain(), b)
		}
	}
	bundles, err := workloadapi.FetchX509Bundles(t.Context(), a.addr())
	if err != nil || bundles.Len() != 2 {
		t.Errorf("%v bundles, %v", bundles, err)
	}
	for path, want := range map[string]fs.FileMode{cfg.SocketPath: 0o777, cfg.AdminSocketPath: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if _, err := healthpb.NewHealthClient(a.dial(t, cfg.AdminSocketPath)).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("admin socket: %v", err)
	}
	if err := a.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	for _, path := range []string{cfg.SocketPath, cfg.AdminSocketPath} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind", path)
		}
	}
}

// updates hands on what a go-spiffe watcher sees.
type updates struct {
	svids chan *workloadapi.X509Context
	errs  chan error
}

func (u updates) OnX509ContextUpdate(c *workloadapi.X509Context) { u.svids <- c }
func (u updates) OnX509ContextWatchError(err error) {
	select {
	case u.errs <- err:
	default:
	}
}

// watch runs a go-spiffe watcher until the test's end.
func watch(t *testing.T, a *agent) updates {
	t.Helper()
	u := updates{svids: make(chan *workloadapi.X509Context, 100), errs: make(chan error, 100)}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { workloadapi.WatchX509Context(ctx, u, a.addr()) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return u
}

func (u updates) await(t *testing.T, what string, cond func(*workloadapi.X509Context) bool) {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case c := <-u.svids:
			if cond(c) {
				return
			}
		case <-timeout.C:
			t.Fatalf("waited a minute for: %s", what)
		}
	}
}

func TestPushesEveryChange(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "b"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	u := watch(t, a)
	u.await(t, "the first answer", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	s.Put(own(s, "tok", "a"))
	u.await(t, "a new entry", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 2 && c.SVIDs[0].ID.Path() == "/a" })
	s.Delete("b")
	u.await(t, "an entry less", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	changed := own(s, "tok", "a")
	changed.DNSNames, changed.Revision = []string{"a.test"}, 1
	s.Put(changed)
	u.await(t, "a new certificate", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	s.AddAuthority()
	u.await(t, "a new authority", func(c *workloadapi.X509Context) bool {
		b, _ := c.Bundles.Get(s.CA.TrustDomain)
		return len(b.X509Authorities()) == 2
	})
	s.Delete("a")
	for err := range u.errs {
		if status.Code(err) == codes.PermissionDenied {
			break
		}
	}
}

func TestRotatesShortSVIDs(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.SVIDTTL = 3 * time.Second })
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	u := watch(t, a)
	serials := make(map[string]bool)
	u.await(t, "three rotations", func(c *workloadapi.X509Context) bool {
		cert := c.DefaultSVID().Certificates[0]
		if !time.Now().Before(cert.NotAfter) {
			t.Error("pushed an expired SVID")
		}
		serials[cert.SerialNumber.String()] = true
		return len(serials) == 4
	})
	if n := len(s.Batches()); n > 6 {
		t.Errorf("%d signing requests for 4 SVIDs", n)
	}
}

func TestRefusesAndExplains(t *testing.T) {
	s := spiretest.New(t, "example.org")
	e := own(s, "tok", "a")
	e.Selectors = append(e.Selectors, registration.Selector{Type: "unix", Value: "path:/nowhere"})
	s.Put(e)
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	_, err := a.fetch(t)
	if st := status.Convert(err); st.Code() != codes.PermissionDenied || !strings.Contains(st.Message(), "no identity issued") {
		t.Errorf("got %v", err)
	}
	if _, err := workloadapi.FetchX509Bundles(t.Context(), a.addr()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("bundles: %v", err)
	}
	log := a.log.String()
	for _, want := range []string{"nearest_spiffe_id=spiffe://example.org/a", "missing=unix:path:/nowhere", "unix:uid:" + strconv.Itoa(os.Geteuid()), "pid=" + strconv.Itoa(os.Getpid())} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %s", want)
		}
	}
	if n := strings.Count(log, `msg="no identity issued"`); n != 1 {
		t.Errorf("explained %d times at once", n)
	}
}

func TestSecurityHeaderAndUnimplemented(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	client := workloadpb.NewSpiffeWorkloadAPIClient(a.dial(t, a.cfg.SocketPath))
	with := func(values ...string) context.Context {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", v)
		}
		return ctx
	}
	for name, ctx := range map[string]context.Context{"none": with(), "false": with("false"), "two": with("true", "true")} {
		stream, err := client.FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if st := status.Convert(err); st.Code() != codes.InvalidArgument || st.Message() != "security header missing from request" {
			t.Errorf("header %s: %v", name, err)
		}
		if _, err := client.FetchJWTSVID(ctx, &workloadpb.JWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("header %s, unary: %v", name, err)
		}
	}
	_, jwt := client.FetchJWTSVID(with("true"), &workloadpb.JWTSVIDRequest{Audience: []string{"a"}})
	_, validate := client.ValidateJWTSVID(with("true"), &workloadpb.ValidateJWTSVIDRequest{})
	for _, err := range []error{jwt, validate} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
	}
}

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

// A further service on the socket: it counts its caller's SVIDs.
func countService(reg grpc.ServiceRegistrar, src nodeagent.X509Source) {
	reg.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Count", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Count", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			return src.WatchX509Context(stream.Context(), func(c *workload.X509Context) error {
				return stream.SendMsg(wrapperspb.Int32(int32(len(c.SVIDs))))
			})
		}}},
	}, nil)
}

func TestFurtherServices(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	cfg.Services = []func(grpc.ServiceRegistrar, nodeagent.X509Source){countService}
	a := start(t, cfg)
	a.awaitHealthy(t)
	stream, err := a.dial(t, cfg.SocketPath).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/test.Count/Count")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	count := func() int32 {
		var n wrapperspb.Int32Value
		if err := stream.RecvMsg(&n); err != nil {
			t.Fatal(err)
		}
		return n.Value
	}
	if n := count(); n != 1 {
		t.Errorf("%d SVIDs", n)
	}
	s.Put(own(s, "tok", "b"))
	if n := count(); n != 2 {
		t.Errorf("%d SVIDs", n)
	}
	s.Delete("a")
	s.Delete("b")
	var err2 error
	for err2 == nil {
		err2 = stream.RecvMsg(new(wrapperspb.Int32Value))
	}
	if status.Code(err2) != codes.PermissionDenied {
		t.Errorf("ended with %v", err2)
	}
}

func TestEndsWhenItIsRefused(t *testing.T) {
	s := spiretest.New(t, "example.org")
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

func TestKeyTypes(t *testing.T) {
	for keyType, want := range map[string]x509.PublicKeyAlgorithm{"ec-p384": x509.ECDSA, "rsa-2048": x509.RSA} {
		s := spiretest.New(t, "example.org")
		s.Put(own(s, "tok", "a"))
		cfg := config(t, s, s.Token("tok", time.Hour))
		cfg.WorkloadKeyType = keyType
		got, err := start(t, cfg).fetch(t)
		if err != nil {
			t.Fatal(err)
		}
		if alg := got.DefaultSVID().Certificates[0].PublicKeyAlgorithm; alg != want {
			t.Errorf("%s: %s", keyType, alg)
		}
	}
}
