package sidecar_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// scrape returns the lines of the metrics page.
func (m *many) scrape(t *testing.T) map[string]string {
	t.Helper()
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.status + metrics.PathPrometheus)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	lines := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			lines[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return lines
}

// until scrapes until a series has a value: what is counted with a record is counted about when it is written.
func (m *many) until(t *testing.T, series, value string) map[string]string {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		page := m.scrape(t)
		if page[series] == value {
			return page
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s", series, page[series], value)
		}
	}
}

// Gap 29: what traffic through a whole sidecar counts, with labels of which there are few.
func TestGap29TrafficIsCounted(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	strict := out
	strict.Name, strict.Listen, strict.Policy = "strict", freeAddr(t), policy.Config{AllowURIs: []string{"spiffe://one.test/other"}}
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, strict}, Status: sidecar.Status{Listen: "http://127.0.0.1:0"}})
	open := dial(t, out.Listen)
	exchange(t, open, "12345")
	const closed = 3
	for range closed {
		if got, err := roundTrip(t, out.Listen, "ab"); got != "ab" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	roundTrip(t, strict.Listen, "x")
	m.until(t, `lanyard_sidecar_connections_total{direction="outbound",peer_trust_domain="one.test",reason="refused",tunnel="strict"}`, "1")
	m.until(t, `lanyard_sidecar_open_connections{direction="inbound",tunnel="in"}`, "1")
	page := m.until(t, `lanyard_sidecar_open_connections{direction="outbound",tunnel="out"}`, "1")
	for series, want := range map[string]string{
		`lanyard_sidecar_accepted_connections_total{direction="outbound",tunnel="out"}`:                                                     "4",
		`lanyard_sidecar_accepted_connections_total{direction="outbound",tunnel="strict"}`:                                                  "1",
		`lanyard_sidecar_open_connections{direction="outbound",tunnel="strict"}`:                                                            "0",
		`lanyard_sidecar_connections_total{direction="outbound",peer_trust_domain="one.test",reason="closed",tunnel="out"}`:                 "3",
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="one.test",reason="closed",tunnel="in"}`:                   "3",
		`lanyard_sidecar_connections_total{direction="inbound",peer_trust_domain="none",reason="refused_by_peer",tunnel="in"}`:              "1",
		`lanyard_sidecar_forwarded_bytes_total{direction="outbound",peer_trust_domain="one.test",tunnel="out"}`:                             "11",
		`lanyard_sidecar_returned_bytes_total{direction="outbound",peer_trust_domain="one.test",tunnel="out"}`:                              "11",
		`lanyard_sidecar_forwarded_bytes_total{direction="inbound",peer_trust_domain="one.test",tunnel="in"}`:                               "11",
		`lanyard_sidecar_handshake_duration_seconds_count{direction="outbound",tunnel="out"}`:                                               "4",
		`lanyard_sidecar_connection_duration_seconds_count{direction="outbound",tunnel="out"}`:                                              "3",
		`lanyard_sidecar_bundle_authorities{source="Workload API ` + in.Identity.WorkloadAPI + `",trust_domain="one.test"}`:                 "1",
		`lanyard_sidecar_identity_source_connected{identity="` + dbID + `",source="Workload API ` + in.Identity.WorkloadAPI + `"}`:          "1",
		`lanyard_sidecar_svid_not_after_timestamp_seconds{identity="` + webID + `",source="Workload API ` + out.Identity.WorkloadAPI + `"}`: "",
	} {
		if got, ok := page[series]; !ok || want != "" && got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	for series := range page {
		for _, l := range label.FindAllStringSubmatch(series, -1) {
			if l[1] == "client" || strings.Contains(l[2], "127.0.0.1") {
				t.Errorf("%s: a value of many", series)
			}
		}
	}
	// What is gone takes its series along, when its last connection ends.
	check(t, m.with(t, in))
	if _, ok := m.scrape(t)[`lanyard_sidecar_open_connections{direction="outbound",tunnel="out"}`]; !ok {
		t.Error("the series is gone before the connection")
	}
	check(t, open.CloseWrite())
	io.ReadAll(open)
	m.until(t, `lanyard_sidecar_open_connections{direction="outbound",tunnel="out"}`, "")
	m.until(t, `lanyard_sidecar_open_connections{direction="inbound",tunnel="in"}`, "0")
}
