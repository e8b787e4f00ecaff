package sds

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

// startBridge runs the standalone server over api until the test ends.
func startBridge(t testing.TB, api *workloadtest.Server, change ...func(*Config)) string {
	t.Helper()
	path, _ := runBridge(t, api, change...)
	return path
}

// runBridge runs the standalone server until stop is called or the test ends.
func runBridge(t testing.TB, api *workloadtest.Server, change ...func(*Config)) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly") // short: a socket's path is limited
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ready := make(chan net.Addr, 1)
	cfg := Config{
		SocketPath: filepath.Join(dir, "sds.sock"), WorkloadAPIAddr: api.Addr(), Ready: func(a net.Addr) { ready <- a },
	}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("sds.Run: %v", err)
		}
		if _, err := os.Stat(cfg.SocketPath); err == nil {
			t.Error("the socket file is left behind")
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return cfg.SocketPath, stop
}

func dialSocket(t testing.TB, path string) secretv3.SecretDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return secretv3.NewSecretDiscoveryServiceClient(conn)
}

func TestSDSBridgeServesAWorkloadAPI(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	api := workloadtest.New(t) // not there yet
	c := dialDelta(t, dialSocket(t, startBridge(t, api)))
	c.subscribe("default", "ALL")
	svid := one.SVID(t, ownID)
	api.Set(t, []*x509svid.SVID{svid}, one.Bundle(), two.Bundle())
	api.Start(t)
	got := c.expect([]string{"ALL", "default"}, nil)
	if !leafOf(t, got["default"]).Equal(svid.Certificates[0]) {
		t.Error("not the workload's SVID")
	}
	wantDomains(t, got["ALL"], "one.test", "two.test")
	c.ack()

	api.Fail(codes.PermissionDenied)
	c.expect(nil, []string{"ALL", "default"})
	svid = one.SVID(t, ownID)
	api.Set(t, []*x509svid.SVID{svid}, one.Bundle())
	got = c.expect([]string{"ALL", "default"}, nil)
	if !leafOf(t, got["default"]).Equal(svid.Certificates[0]) {
		t.Error("not the rotated SVID")
	}
}

func TestSDSBridgeSocketMode(t *testing.T) {
	one := testca.New(t, "one.test")
	api := workloadtest.Start(t, []*x509svid.SVID{one.SVID(t, ownID)}, one.Bundle())
	for _, tt := range []struct {
		allowed []int
		mode    fs.FileMode
	}{{nil, 0o600}, {[]int{4242}, 0o666}} {
		path := startBridge(t, api, func(c *Config) { c.AllowedUIDs = tt.allowed })
		info, err := os.Stat(path)
		check(t, err)
		if info.Mode().Perm() != tt.mode {
			t.Errorf("with allowed uids %v the socket has mode %v, want %v", tt.allowed, info.Mode().Perm(), tt.mode)
		}
		c := dialSotW(t, dialSocket(t, path))
		c.want("default")
		c.next()
	}
}

func TestSDSBridgeRefusesOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	one := testca.New(t, "one.test")
	api := workloadtest.Start(t, []*x509svid.SVID{one.SVID(t, ownID)}, one.Bundle())
	var log logBuffer
	path := startBridge(t, api, func(c *Config) { c.AllowedUIDs, c.Log = []int{4242}, log.logger() })
	check(t, os.Chmod(filepath.Dir(path), 0o755))
	if got := connectAs(t, path, 4242); got != "served" {
		t.Errorf("an allowed user is %s", got)
	}
	for range 3 {
		if got := connectAs(t, path, 4243); got != "refused" {
			t.Errorf("a user who is not allowed is %s", got)
		}
	}
	wantLogged(t, &log, "uid=4243", 1)
}

func TestSDSBridgeBoundsMetadata(t *testing.T) {
	one := testca.New(t, "one.test")
	api := workloadtest.Start(t, []*x509svid.SVID{one.SVID(t, ownID)}, one.Bundle())
	client := dialSocket(t, startBridge(t, api))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", 64<<10))
	if _, err := client.FetchSecrets(ctx, &discoveryv3.DiscoveryRequest{}); err == nil {
		t.Error("64 KiB of metadata are accepted")
	}
}

const helperSocket = "LANYARD_SDS_TEST_SOCKET"

// connectAs runs this test binary as uid and returns what became of its
// connection.
func connectAs(t *testing.T, path string, uid uint32) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	check(t, err)
	copied := filepath.Join(filepath.Dir(path), "helper") // where that user can read it
	if _, err := os.Stat(copied); err != nil {
		check(t, os.WriteFile(copied, self, 0o755))
	}
	cmd := helperCommand(t, copied, helperSocket+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// helper is what TestMain does instead of testing, for connectAs: it says
// whether the server reads HTTP/2's preface or hangs up.
func helper(path string) string {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return "refused"
	}
	return "served"
}

func TestSDSBridgeConfigErrors(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	err := Config{SocketPath: "sds.sock", AllowedUIDs: []int{-1}, Options: Options{BundleName: "ALL"}}.Validate()
	for _, want := range []string{
		`socket path "sds.sock": give an absolute path`,
		"no Workload API address: give one or set SPIFFE_ENDPOINT_SOCKET",
		"allowed uid -1",
		`default_bundle_name and default_all_bundles_name are both "ALL"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	err = Config{SocketPath: "/run/x/api.sock", WorkloadAPIAddr: "unix:///run/x/api.sock"}.Validate()
	if err == nil || !strings.Contains(err.Error(), "is the Workload API's own") {
		t.Errorf("got %v", err)
	}
}
