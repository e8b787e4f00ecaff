package sds

import (
	"context"
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
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
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
