package metrics_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

var td = spiffeid.RequireTrustDomainFromString("example.org")

// registry has a few metrics.
func registry(cfg metrics.Config) *metrics.Registry {
	cfg.Prometheus = &metrics.Listener{}
	r := metrics.NewRegistry(cfg, metrics.Options{Prefix: "spire_agent", TrustDomain: td})
	issued := metrics.Register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lanyard_issued_total"}, []string{"kind", "outcome"}))
	issued.WithLabelValues("x509", "ok").Inc()
	issued.WithLabelValues("x509", "error").Add(2)
	took := metrics.Register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lanyard_rpc_seconds", Buckets: []float64{1, 2}}, []string{"kind", "outcome"}))
	took.WithLabelValues("x509", "ok").Observe(1.5)
	took.WithLabelValues("x509", "error").Observe(.5)
	calls := metrics.NewCalls(r)
	calls.Count("rpc_a", "OK", 3*time.Millisecond)
	calls.Count("rpc_a", "OK", 4*time.Millisecond)
	calls.Count("sync_b", "NotFound", time.Second)
	return r
}

func scrape(t *testing.T, r *metrics.Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func want(t *testing.T, body string, lines ...string) {
	t.Helper()
	all := strings.Split(body, "\n")
	for _, line := range lines {
		if !slices.Contains(all, line) {
			name, _, _ := strings.Cut(line, "{")
			t.Errorf("no line %s; those of that name: %q", line, slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.HasPrefix(l, name) }))
		}
	}
}

func TestCallsAreCountedAsSPIREDoes(t *testing.T) {
	want(t, scrape(t, registry(metrics.Config{})),
		`spire_agent_rpc_a{status="OK"} 2`, `spire_agent_rpc_a_elapsed_time_sum{status="OK"} 7`, `spire_agent_rpc_a_elapsed_time_count{status="OK"} 2`,
		`spire_agent_sync_b{status="NotFound"} 1`, `spire_agent_sync_b_elapsed_time_sum{status="NotFound"} 1000`)
}

func TestLabelsAndPrefixAreConfigured(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want(t, scrape(t, registry(metrics.Config{Prefix: "my.agent", TrustDomainLabel: true, HostnameLabel: true})),
		`my_agent_rpc_a{host="`+host+`",status="OK",trust_domain="example_org"} 2`,
		`lanyard_issued_total{host="`+host+`",kind="x509",outcome="ok",trust_domain="example_org"} 1`)
}

func TestFilter(t *testing.T) {
	body := scrape(t, registry(metrics.Config{Filter: metrics.Filter{
		BlockedPrefixes: []string{"spire_agent", "go"}, AllowedPrefixes: []string{"spire_agent.sync"}, BlockedLabels: []string{"outcome"},
	}}))
	want(t, body, `lanyard_issued_total{kind="x509"} 3`, `spire_agent_sync_b{status="NotFound"} 1`,
		`lanyard_rpc_seconds_bucket{kind="x509",le="1"} 1`, `lanyard_rpc_seconds_bucket{kind="x509",le="2"} 2`, `lanyard_rpc_seconds_count{kind="x509"} 2`)
	if m := regexp.MustCompile(`(?m)^(go_|spire_agent_rpc).*`).FindString(body); m != "" {
		t.Errorf("not left out: %s", m)
	}
	body = scrape(t, registry(metrics.Config{Filter: metrics.Filter{AllowedLabels: []string{"kind"}}}))
	want(t, body, `lanyard_issued_total{kind="x509"} 3`, `spire_agent_rpc_a 2`)
}

func TestNamesInCallsMakeNoSeriesWithoutEnd(t *testing.T) {
	r := registry(metrics.Config{})
	calls := metrics.NewCalls(r)
	var names metrics.Names
	seen := map[string]bool{}
	for i := range 2000 {
		calls.Count("rpc_x"+strings.Repeat("a", i), "OK", 0)
		seen[names.Of("/a.b.C/"+strings.Repeat("D", i))] = true
	}
	if n := strings.Count(scrape(t, r), "\n"); n > 5000 {
		t.Errorf("%d lines", n)
	}
	if len(seen) != 257 || !seen["C/DD"] || !seen["other"] {
		t.Errorf("%d names", len(seen))
	}
}

func TestNamesAreFitForPrometheus(t *testing.T) {
	for method, expect := range map[string][2]string{
		"/spire.api.server.svid.v1.SVID/MintX509SVID": {"SVID/MintX509SVID", "_spire_api_server_svid_v1_svid_mint_x509svid"},
		"/\xff/é\xfe": {"_/é_", "_____"},
		"":            {"/", ""},
	} {
		var names metrics.Names
		if got := names.Of(method); got != expect[0] {
			t.Errorf("%q: %q", method, got)
		}
		if got := metrics.Snake(method); got != expect[1] {
			t.Errorf("%q: %q", method, got)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	r := registry(metrics.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/anything")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err != nil || !strings.Contains(string(body), "spire_agent_rpc_a{") {
		t.Errorf("%v, %s", err, body)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNothingIsCollectedThatNobodyAskedFor(t *testing.T) {
	if metrics.NewRegistry(metrics.Config{Prefix: "x"}, metrics.Options{}) != nil {
		t.Error("a registry without a listener")
	}
}

func TestValidateNamesTheKeys(t *testing.T) {
	err := metrics.Config{Prometheus: &metrics.Listener{Port: 70000, TLS: &metrics.TLS{UseSVID: true, CertFile: "x", ClientCAFile: "y", AuthorizedIDs: []spiffeid.ID{{}}}}}.Validate()
	wantText := `port 70000: want 1 to 65535, or 0 for any that is free
tls: use_spire_svid goes without cert_file and key_file: remove one or the other
tls: client_ca_file and authorized_spiffe_ids exclude each other: clients are verified with one or with their trust domains' bundles`
	if diff := cmp.Diff(wantText, err.Error()); diff != "" {
		t.Error(diff)
	}
	err = metrics.Config{Prometheus: &metrics.Listener{TLS: &metrics.TLS{KeyFile: filepath.Join("a", "b")}}}.Validate()
	if err == nil || err.Error() != "tls: wants both cert_file and key_file, or use_spire_svid = true" {
		t.Error(err)
	}
}
