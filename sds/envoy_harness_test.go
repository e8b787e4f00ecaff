package sds

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

// envoyBinary finds the real Envoy, or skips the test.
func envoyBinary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("LANYARD_ENVOY")
	if path == "" {
		root, err := filepath.Abs("..")
		check(t, err)
		path = filepath.Join(root, ".tools", "envoy-1.40.0", "envoy")
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Skipf("no Envoy: %v; set LANYARD_ENVOY to the binary of Envoy 1.40, or install it there", err)
	}
	return path
}

// freeAddress returns a loopback address that nothing else picks: the port is
// free for that moment only, but on an IP address of the test's own.
func freeAddress(t testing.TB) string {
	t.Helper()
	ip := net.IPv4(127, byte(1+rand.N(250)), byte(rand.N(250)), byte(1+rand.N(250)))
	l, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

// proxy is a running Envoy.
type proxy struct {
	t     testing.TB
	admin string
	http  *http.Client
	ended <-chan struct{}
}

// startEnvoy runs Envoy with the configuration that Bootstrap makes of opts,
// until the test ends. It does not wait for it: ready does.
func startEnvoy(t testing.TB, opts BootstrapOptions) *proxy {
	t.Helper()
	binary := envoyBinary(t)
	opts.Admin = freeAddress(t)
	config := filepath.Join(t.TempDir(), "envoy.yaml")
	file, err := os.Create(config)
	check(t, err)
	check(t, Bootstrap(file, opts))
	check(t, file.Close())

	var log logBuffer
	cmd := exec.Command(binary, "--config-path", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	cmd.Stderr = &log
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	p := &proxy{t: t, admin: opts.Admin, http: newClient(t), ended: ended}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("Envoy %s said:\n%s", opts.NodeID, &log)
		}
	})
	return p
}

// ask returns a page of Envoy's admin interface.
func (p *proxy) ask(path string) (string, error) {
	resp, err := p.http.Get("http://" + p.admin + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func (p *proxy) get(path string) string {
	p.t.Helper()
	page, err := p.ask(path)
	check(p.t, err)
	return page
}

// ready waits until Envoy takes connections.
func (p *proxy) ready() {
	p.t.Helper()
	eventually(p.t, "Envoy is live", func() bool {
		select {
		case <-p.ended:
			p.t.Fatal("Envoy ended")
		default:
		}
		page, err := p.ask("/ready")
		return err == nil && strings.Contains(page, "LIVE")
	})
}

// serials returns the serial numbers of the leaf certificates in use.
func (p *proxy) serials() map[string]bool {
	p.t.Helper()
	var answer struct {
		Certificates []struct {
			CertChain []struct {
				SerialNumber string `json:"serial_number"`
			} `json:"cert_chain"`
		} `json:"certificates"`
	}
	check(p.t, json.Unmarshal([]byte(p.get("/certs")), &answer))
	out := make(map[string]bool)
	for _, c := range answer.Certificates {
		if len(c.CertChain) > 0 {
			out[c.CertChain[0].SerialNumber] = true
		}
	}
	return out
}

// uses waits until svid, and no other certificate, is in use.
func (p *proxy) uses(svid *x509svid.SVID) {
	p.t.Helper()
	serial := fmt.Sprintf("%x", svid.Certificates[0].SerialNumber)
	if len(serial)%2 == 1 {
		serial = "0" + serial // Envoy prints whole bytes
	}
	eventually(p.t, "certificate "+serial+" in use", func() bool {
		got := p.serials()
		return len(got) == 1 && got[serial]
	})
}

// counter sums the counters whose name contains part.
func (p *proxy) counter(part string) int {
	p.t.Helper()
	sum := 0
	for line := range strings.Lines(p.get("/stats?filter=" + part)) {
		if _, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			if n, err := strconv.Atoi(value); err == nil {
				sum += n
			}
		}
	}
	return sum
}

// eventually asks another process until the answer is yes. There is no event to
// wait for on its admin interface.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}

// pair is a client's Envoy that speaks to a server's, each over a Workload API
// and an SDS bridge of its own.
type pair struct {
	ca                   *testca.CA
	clientAPI, serverAPI *workloadtest.Server
	client, server       *proxy
	address              string // where the client's Envoy takes plain bytes
}

const (
	clientID = "spiffe://one.test/client"
	serverID = "spiffe://one.test/server"
)

// startPair starts both, with change applied to the options of each, in front of
// an HTTP server that answers "hello".
func startPair(t *testing.T, change func(*BootstrapOptions)) *pair {
	t.Helper()
	envoyBinary(t)
	p := &pair{ca: testca.New(t, "one.test"), clientAPI: workloadtest.New(t), serverAPI: workloadtest.New(t), address: freeAddress(t)}
	p.clientAPI.Start(t)
	p.serverAPI.Start(t)
	p.set(t, p.clientAPI, p.ca.SVID(t, clientID))
	p.set(t, p.serverAPI, p.ca.SVID(t, serverID))
	between := freeAddress(t)

	inbound := BootstrapOptions{NodeID: "server", SDSSocket: startBridge(t, p.serverAPI), Inbound: &Leg{
		Listen: between, Target: serveHello(t), Peers: []spiffeid.ID{spiffeid.RequireFromString(clientID)},
	}}
	outbound := BootstrapOptions{NodeID: "client", SDSSocket: startBridge(t, p.clientAPI), Outbound: &Leg{
		Listen: p.address, Target: between, Peers: []spiffeid.ID{spiffeid.RequireFromString(serverID)},
	}}
	change(&inbound)
	change(&outbound)
	p.server, p.client = startEnvoy(t, inbound), startEnvoy(t, outbound)
	p.server.ready()
	p.client.ready()
	return p
}

// set makes svid what api serves, with the pair's bundle, which is also that of
// svid's trust domain if it is another one: a Workload API always sends one.
func (p *pair) set(t testing.TB, api *workloadtest.Server, svid *x509svid.SVID) {
	t.Helper()
	bundles := []*x509bundle.Bundle{p.ca.Bundle()}
	if td := svid.ID.TrustDomain(); td != p.ca.TrustDomain {
		bundles = append(bundles, x509bundle.FromX509Authorities(td, []*x509.Certificate{p.ca.Cert}))
	}
	api.Set(t, []*x509svid.SVID{svid}, bundles...)
}

func serveHello(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// newClient returns an HTTP client that keeps its connection.
func newClient(t testing.TB) *http.Client {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 5 * time.Second, Transport: transport}
}

// hello asks for one page, on a new connection if so said.
func (p *pair) hello(c *http.Client, fresh bool) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+p.address, nil)
	if err != nil {
		return err
	}
	req.Close = fresh
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("status %s, body %q", resp.Status, body)
	}
	return err
}
