package issuer_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/issuer"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func TestRunServesOnBothListeners(t *testing.T) {
	cfg, log := newConfig(t)
	r := start(t, cfg)
	health, err := grpc_health_v1.NewHealthClient(r.local()).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health = %v, %v", health, err)
	}
	bundle := r.bundle()
	tlsConfig := mtls.Client(anonymous{bundle}, mtls.Exactly(spiffeid.RequireFromPath(td, "/spire/server")), mtls.Options{NextProtos: []string{"h2"}})
	conn, err := grpc.NewClient(r.addrs.TCP.String(), grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)))
	must(t, err)
	defer conn.Close()
	resp, err := bundlev1.NewBundleClient(conn).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	if len(resp.X509Authorities) != 1 {
		t.Errorf("bundle over TCP = %v", resp)
	}
	if n := strings.Count(log.String(), "Starting Server APIs"); n != 2 {
		t.Errorf("%d listeners in the log, want 2:\n%s", n, log)
	}
	for path, want := range map[string]fs.FileMode{
		cfg.SocketPath: 0o600, filepath.Dir(cfg.SocketPath): 0o700, cfg.DataDir: 0o700,
		filepath.Join(cfg.DataDir, "keys.json"): 0o600,
	} {
		info, err := os.Stat(path)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", path, got, want)
		}
	}
	must(t, r.stop())
	if _, err := os.Stat(cfg.SocketPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("lanyard/issuer/")) || bytes.Contains(stacks, []byte("grpc.(*Server)")) {
		t.Errorf("goroutines are left behind:\n%s", stacks)
	}
}

func TestRestartKeepsBundle(t *testing.T) {
	cfg, _ := newConfig(t)
	first := start(t, cfg)
	before := first.bundle()
	must(t, first.stop())
	if after := start(t, cfg).bundle(); !before.Equal(after) {
		t.Error("another bundle after a restart")
	}
}

// wantError runs an issuer that cannot start and checks its one-line error.
func wantError(t *testing.T, cfg issuer.Config, parts ...string) {
	t.Helper()
	cfg.Ready = func(issuer.Addrs) { t.Error("it is ready") }
	err := issuer.Run(t.Context(), cfg)
	if err == nil {
		t.Fatal("Run = nil")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Run = %q, want one line with %q", err, part)
		}
	}
}

func TestPortInUse(t *testing.T) {
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer holder.Close()
	cfg, _ := newConfig(t)
	cfg.BindPort = holder.Addr().(*net.TCPAddr).Port
	wantError(t, cfg, "127.0.0.1:"+strconv.Itoa(cfg.BindPort)+" is in use", "bind_port")
	if _, err := os.Stat(cfg.SocketPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the admin socket was made all the same: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "store")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store was made all the same: %v", err)
	}
}

func TestDataDirInUse(t *testing.T) {
	cfg, _ := newConfig(t)
	start(t, cfg)
	other := cfg
	other.SocketPath += "2"
	wantError(t, other, cfg.DataDir, "in use by another process (pid "+strconv.Itoa(os.Getpid())+")")
}

func TestDataDirOfAnotherTrustDomain(t *testing.T) {
	cfg, _ := newConfig(t)
	must(t, start(t, cfg).stop())
	cfg.TrustDomain = spiffeid.RequireTrustDomainFromString("other.test")
	wantError(t, cfg, `holds trust domain "lanyard.test", not "other.test"`)
}

func TestDataDirOpenToOthers(t *testing.T) {
	cfg, _ := newConfig(t)
	must(t, os.Mkdir(cfg.DataDir, 0o700))
	must(t, os.Chmod(cfg.DataDir, 0o777))
	wantError(t, cfg, cfg.DataDir, "chmod 700")
}

func TestCorruptKeyFile(t *testing.T) {
	cfg, _ := newConfig(t)
	must(t, os.Mkdir(cfg.DataDir, 0o700))
	keys := filepath.Join(cfg.DataDir, "keys.json")
	must(t, os.WriteFile(keys, []byte(`{"keys":`), 0o600))
	wantError(t, cfg, keys, "restore it from a backup")
	if data, err := os.ReadFile(keys); err != nil || string(data) != `{"keys":` {
		t.Errorf("the file is now %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "store")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store was made: %v", err)
	}
}

func TestSockets(t *testing.T) {
	cfg, _ := newConfig(t)
	must(t, os.Mkdir(filepath.Dir(cfg.SocketPath), 0o700))

	live, err := unixsock.Listen(cfg.SocketPath, 0o600)
	must(t, err)
	wantError(t, cfg, cfg.SocketPath, "is in use")

	live.SetUnlinkOnClose(false)
	must(t, live.Close())
	r := start(t, cfg) // over the stale one
	r.bundle()
	must(t, r.stop())

	must(t, os.WriteFile(cfg.SocketPath, nil, 0o600))
	wantError(t, cfg, cfg.SocketPath, "is not a socket")
}

func TestCancelledStart(t *testing.T) {
	cfg, _ := newConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := issuer.Run(ctx, cfg); err != nil {
		t.Errorf("Run = %v", err)
	}
}
