package issuer_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/issuer/oidc"
)

// TestRunServesMetricsHealthAndOIDC asks each listener beside the API for what
// the parts of a running issuer say there.
func TestRunServesMetricsHealthAndOIDC(t *testing.T) {
	cfg, _ := newConfig(t)
	cfg.Metrics = metrics.Config{Prometheus: &metrics.Listener{Host: "127.0.0.1"}}
	cfg.Health = health.Config{Enabled: true, Address: "127.0.0.1"}
	cfg.OIDC = &oidc.Config{Domains: []string{"oidc.test"}, Listen: "127.0.0.1:0", Plaintext: true}
	r := start(t, cfg)
	if len(r.bundle().X509Authorities()) != 1 {
		t.Error("no authority")
	}
	for _, want := range []struct {
		addr net.Addr
		path string
		text string
	}{
		{r.addrs.Metrics, "/metrics", `lanyard_issuer_authority_expiry_seconds`},
		{r.addrs.Health, "/ready", `{`},
		{r.addrs.Health, "/live", `{`},
		{r.addrs.OIDC, "/keys", `"kid"`},
	} {
		code, body := get(t, want.addr, want.path)
		if code != http.StatusOK || !strings.Contains(body, want.text) {
			t.Errorf("%s: %d, want %q in\n%s", want.path, code, want.text, body)
		}
	}
	must(t, r.stop())
	if conn, err := net.DialTimeout("tcp", r.addrs.Health.String(), time.Second); err == nil {
		conn.Close()
		t.Error("health is served after the end")
	}
}

func get(t *testing.T, addr net.Addr, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + addr.String() + path)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

// TestRunBindsAllOrNothing starts beside a program that has one of the ports.
func TestRunBindsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for key, change := range map[string]func(*issuer.Config){
		"health_checks": func(c *issuer.Config) { c.Health = health.Config{Enabled: true, Address: "127.0.0.1", Port: port} },
		"Prometheus": func(c *issuer.Config) {
			c.Metrics = metrics.Config{Prometheus: &metrics.Listener{Host: "127.0.0.1", Port: port}}
		},
		"oidc": func(c *issuer.Config) {
			c.OIDC = &oidc.Config{Domains: []string{"oidc.test"}, Listen: taken.Addr().String(), Plaintext: true}
		},
	} {
		cfg, _ := newConfig(t)
		change(&cfg)
		err := issuer.Run(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), key) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: %v", key, err)
		}
	}
}
