package metrics_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// get returns what a path answers.
func get(t testing.TB, s *metrics.Set, target string) string {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	w := httptest.NewRecorder()
	h := s.Handlers()[path]
	if h == nil {
		t.Fatalf("%s is not served", path)
	}
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d, %v", target, w.Code, err)
	}
	return string(body)
}

// wantLines checks that page has each line.
func wantLines(t testing.TB, page string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+page, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			var near []string
			for l := range strings.Lines(page) {
				if strings.HasPrefix(l, name) {
					near = append(near, l)
				}
			}
			t.Errorf("no line %q; there are\n%s", line, strings.Join(near, ""))
		}
	}
}

func peerOf(domain string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://" + domain + "/web")
}

// connection has tunnel count one that ended by cause after it was up for a second.
func connection(tunnel *metrics.Tunnel, domain string, cause record.Cause) *record.Record {
	rec := &record.Record{Start: time.Now().Add(-time.Second), Peer: peerOf(domain), Handshake: 2 * time.Millisecond, Resumed: true}
	tunnel.Accepted()
	rec.Connected()
	tunnel.Established(rec)
	rec.End(cause, nil)
	tunnel.Ended(rec)
	return rec
}

func refused(tunnel *metrics.Tunnel, claimed string) {
	rec := &record.Record{Start: time.Now(), Peer: peerOf(claimed), PeerClaimed: true}
	tunnel.Accepted()
	rec.End(record.Refused, errors.New("no rule"))
	tunnel.Ended(rec)
}

func served(t testing.TB) *metrics.Set {
	t.Helper()
	return metrics.New(metrics.Config{Serve: true})
}

func TestGap29MetricsHaveLabelsAndBytes(t *testing.T) {
	s := served(t)
	web, db := s.Tunnel("web", record.Inbound), s.Tunnel("db", record.Outbound)
	connection(web, "one.test", record.Closed)
	connection(web, "two.test", record.Truncated)
	connection(db, "one.test", record.Closed)
	refused(web, "one.test")
	web.Accepted()
	web.AcceptError()
	web.Counters(&record.Record{Peer: peerOf("one.test")}).Forward.Add(7)
	web.Counters(&record.Record{Peer: peerOf("one.test")}).Backward.Add(5)
	wantLines(t, get(t, s, metrics.PathPrometheus),
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="one.test",reason="closed",tunnel="web"} 1`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="two.test",reason="truncated",tunnel="web"} 1`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="one.test",reason="refused",tunnel="web"} 1`,
		`lanyard_sidecar_connections_total{direction="outbound",peer_trust_domain="one.test",reason="closed",tunnel="db"} 1`,
		`lanyard_sidecar_accepted_connections_total{direction="inbound",tunnel="web"} 4`,
		`lanyard_sidecar_accept_errors_total{direction="inbound",tunnel="web"} 1`,
		`lanyard_sidecar_open_connections{direction="inbound",tunnel="web"} 1`,
		`lanyard_sidecar_resumed_handshakes_total{direction="inbound",tunnel="web"} 2`,
		`lanyard_sidecar_forwarded_bytes_total{direction="inbound",peer_trust_domain="one.test",tunnel="web"} 7`,
		`lanyard_sidecar_returned_bytes_total{direction="inbound",peer_trust_domain="one.test",tunnel="web"} 5`,
		`lanyard_sidecar_handshake_duration_seconds_bucket{direction="inbound",tunnel="web",le="0.001"} 0`,
		`lanyard_sidecar_handshake_duration_seconds_bucket{direction="inbound",tunnel="web",le="0.0025"} 2`,
		`lanyard_sidecar_connection_duration_seconds_count{direction="inbound",tunnel="web"} 2`,
		`lanyard_sidecar_connect_duration_seconds_count{direction="outbound",tunnel="db"} 1`)
}

// Names, types and help follow Prometheus' conventions: counters are counters, and
// histograms have buckets.
func TestGap29PrometheusAcceptsThePage(t *testing.T) {
	s := served(t)
	connection(s.Tunnel("web", record.Inbound), "one.test", record.Closed)
	s.Tunnel("web", record.Inbound).Counters(&record.Record{Peer: peerOf("one.test")}).Forward.Add(1)
	s.Identities(func() []metrics.IdentityStatus { return []metrics.IdentityStatus{status()} })
	page := get(t, s, metrics.Path+"?format=prometheus")
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lanyard_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(page, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
}

var someTime = time.Unix(1_800_000_000, 500_000_000)

func status() metrics.IdentityStatus {
	return metrics.IdentityStatus{Tunnels: []string{"web"}, Status: identity.Status{
		Source: "Workload API unix:///a", SPIFFEID: "spiffe://one.test/db", NotBefore: someTime, NotAfter: someTime.Add(time.Hour),
		LastUpdate: someTime.Add(time.Second), Connected: true, Bundles: []identity.BundleStatus{
			{TrustDomain: "one.test", Authorities: 2, NotAfter: someTime.Add(24 * time.Hour), Updated: someTime},
			{TrustDomain: "two.test", Authorities: 1}}}}
}

func TestGap04MetricsTellIdentityAgeAndExpiry(t *testing.T) {
	s := served(t)
	files := metrics.IdentityStatus{Status: identity.Status{Source: "files", Subject: "CN=a\xff", Connected: true}}
	s.Identities(func() []metrics.IdentityStatus { return []metrics.IdentityStatus{status(), status(), files} }) // one twice
	wantLines(t, get(t, s, metrics.PathPrometheus),
		`lanyard_sidecar_svid_not_before_timestamp_seconds{identity="spiffe://one.test/db",source="Workload API unix:///a"} 1.8000000005e+09`,
		`lanyard_sidecar_svid_not_after_timestamp_seconds{identity="spiffe://one.test/db",source="Workload API unix:///a"} 1.8000036005e+09`,
		`lanyard_sidecar_svid_last_update_timestamp_seconds{identity="spiffe://one.test/db",source="Workload API unix:///a"} 1.8000000015e+09`,
		`lanyard_sidecar_identity_source_connected{identity="spiffe://one.test/db",source="Workload API unix:///a"} 1`,
		`lanyard_sidecar_identity_source_connected{identity="CN=a`+"\uFFFD"+`",source="files"} 1`,
		`lanyard_sidecar_bundle_authorities{source="Workload API unix:///a",trust_domain="one.test"} 2`,
		`lanyard_sidecar_bundle_not_after_timestamp_seconds{source="Workload API unix:///a",trust_domain="one.test"} 1.8000864005e+09`,
		`lanyard_sidecar_bundle_last_update_timestamp_seconds{source="Workload API unix:///a",trust_domain="one.test"} 1.8000000005e+09`)
}

func TestTrustDomainsThatAreLabelsStayFew(t *testing.T) {
	s := served(t)
	s.Identities(func() []metrics.IdentityStatus { return []metrics.IdentityStatus{status()} })
	tunnel := s.Tunnel("", record.Inbound)
	refused(tunnel, "one.test")     // claimed, and there is a bundle
	refused(tunnel, "claimed.test") // claimed only
	for i := range 60 {
		connection(tunnel, fmt.Sprintf("d%d.test", i), record.Closed)
	}
	rec := &record.Record{Start: time.Now()}
	tunnel.Accepted()
	rec.End(record.HandshakeFailed, nil)
	tunnel.Ended(rec)
	page := get(t, s, metrics.PathPrometheus)
	wantLines(t, page,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="one.test",reason="refused",tunnel=""} 1`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="other",reason="refused",tunnel=""} 1`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="other",reason="closed",tunnel=""} 11`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="d48.test",reason="closed",tunnel=""} 1`,
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="none",reason="handshake_failed",tunnel=""} 1`)
	if strings.Contains(page, "claimed.test") {
		t.Error("a trust domain that was only claimed is a label")
	}
}

func TestReloadsAreCounted(t *testing.T) {
	s := served(t)
	wantLines(t, get(t, s, metrics.PathPrometheus), `lanyard_sidecar_last_successful_reload_timestamp_seconds 0`)
	s.Reloaded(errors.New("bad file"))
	wantLines(t, get(t, s, metrics.PathPrometheus), `lanyard_sidecar_last_successful_reload_timestamp_seconds 0`)
	s.Reloaded(nil)
	page := get(t, s, metrics.PathPrometheus)
	wantLines(t, page, `lanyard_sidecar_reloads_total{result="ok"} 1`, `lanyard_sidecar_reloads_total{result="error"} 1`)
	if strings.Contains(page, "last_successful_reload_timestamp_seconds 0\n") {
		t.Error("the time of the successful reload is not told")
	}
}

// nobody keeps no tunnel.
func nobody(string, record.Direction) bool { return false }

func TestRemovedTunnelsHaveNoSeries(t *testing.T) {
	s := served(t)
	old, other := s.Tunnel("old", record.Inbound), s.Tunnel("other", record.Inbound)
	connection(other, "one.test", record.Closed)
	rec := &record.Record{Start: time.Now(), Peer: peerOf("one.test")}
	old.Accepted()
	s.Retain(func(name string, _ record.Direction) bool { return name == "other" })
	wantLines(t, get(t, s, metrics.PathPrometheus), `lanyard_sidecar_open_connections{direction="inbound",tunnel="old"} 1`)
	rec.End(record.Closed, nil)
	old.Ended(rec)
	page := get(t, s, metrics.PathPrometheus)
	if strings.Contains(page, `"old"`) {
		t.Errorf("still there:\n%s", page)
	}
	wantLines(t, page, `lanyard_sidecar_accepted_connections_total{direction="inbound",tunnel="other"} 1`)
	if !strings.Contains(get(t, s, metrics.Path), `"metric":"ghostunnel.accept.total","value":2`) {
		t.Error("the totals forgot the tunnel")
	}
}

// A tunnel that comes back before its last connection has ended goes on counting.
func TestATunnelThatComesBackKeepsItsSeries(t *testing.T) {
	s := served(t)
	tunnel := s.Tunnel("web", record.Inbound)
	tunnel.Accepted()
	s.Retain(nobody)
	connection(s.Tunnel("web", record.Inbound), "one.test", record.Closed)
	rec := &record.Record{Start: time.Now(), Peer: peerOf("one.test")}
	rec.End(record.Closed, nil)
	tunnel.Ended(rec)
	wantLines(t, get(t, s, metrics.PathPrometheus), `lanyard_sidecar_accepted_connections_total{direction="inbound",tunnel="web"} 2`,
		`lanyard_sidecar_open_connections{direction="inbound",tunnel="web"} 0`)
	s.Retain(nobody)
	if page := get(t, s, metrics.PathPrometheus); strings.Contains(page, `"web"`) {
		t.Errorf("still there:\n%s", page)
	}
}

func TestNothingIsCollectedThatNobodySees(t *testing.T) {
	s := metrics.New(metrics.Config{})
	tunnel := s.Tunnel("web", record.Inbound)
	connection(tunnel, "one.test", record.Closed)
	tunnel.AcceptError()
	s.Reloaded(nil)
	s.Retain(nobody)
	if tunnel != nil || tunnel.Counters(&record.Record{}) != nil || s.Handlers() != nil || s.Run(t.Context()) != nil {
		t.Error("something is collected")
	}
}
