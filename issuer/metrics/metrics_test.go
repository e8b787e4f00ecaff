package metrics_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	imetrics "github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/issuer/metrics"
)

// config collects.
var config = imetrics.Config{Prometheus: &imetrics.Listener{}}

var td = spiffeid.RequireTrustDomainFromString("example.org")

func sources() metrics.Sources {
	return metrics.Sources{
		TrustDomain: td, Started: time.Now().Add(-time.Hour), Version: "1.2.3",
		Entries: func() int { return 7 },
		Agents:  func() metrics.Agents { return metrics.Agents{Live: 3, Expired: 2, Banned: 1} },
		Authorities: func() []metrics.Authority {
			return []metrics.Authority{
				{Kind: "x509", ID: "a1", Status: "active", ExpiresAt: time.Now().Add(time.Hour)},
				{Kind: "x509", ID: "a0", Status: "old", Tainted: true, ExpiresAt: time.Now().Add(time.Minute)},
			}
		},
		BundleSequence: func() uint64 { return 42 },
		Store: func() metrics.Store {
			return metrics.Store{Healthy: true, SizeBytes: 1000, QuotaBytes: 2000, Revision: 9}
		},
	}
}

func scrape(t *testing.T, s *metrics.Set) string {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
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

func TestEverythingIsCounted(t *testing.T) {
	s := metrics.New(config, sources(), nil)
	s.Call("/spire.api.server.entry.v1.Entry/ListEntries", "OK", 3*time.Millisecond)
	s.Call("/lanyard.issuer.v1.Operations/Backup", "Unavailable", time.Second)
	s.Issued("x509", time.Millisecond, nil)
	s.Issued("x509", time.Millisecond, errors.New("no"))
	s.Issued("jwt", time.Millisecond, nil)
	s.Join("join_key", "ok")
	s.Join("made/up", "InvalidArgument")
	s.RateLimited("signing")
	want(t, scrape(t, s),
		`lanyard_issuer_info{trust_domain_name="example.org",version="1.2.3"} 1`,
		`lanyard_issuer_entries 7`,
		`lanyard_issuer_agents{state="live"} 3`, `lanyard_issuer_agents{state="expired"} 2`, `lanyard_issuer_agents{state="banned"} 1`,
		`lanyard_issuer_authorities{kind="x509",status="active"} 1`, `lanyard_issuer_authorities{kind="jwt",status="active"} 0`,
		`lanyard_issuer_bundle_sequence 42`,
		`lanyard_issuer_store_healthy 1`, `lanyard_issuer_store_size_bytes 1000`, `lanyard_issuer_store_quota_bytes 2000`, `lanyard_issuer_store_revision 9`,
		`lanyard_issuer_rpc_seconds_count{code="OK",method="Entry/ListEntries"} 1`,
		`lanyard_issuer_rpc_seconds_count{code="Unavailable",method="Operations/Backup"} 1`,
		`lanyard_issuer_rpc_seconds_bucket{code="OK",method="Entry/ListEntries",le="0.0025"} 0`,
		`lanyard_issuer_rpc_seconds_bucket{code="OK",method="Entry/ListEntries",le="0.005"} 1`,
		`lanyard_issuer_issued_total{kind="x509",outcome="ok"} 1`, `lanyard_issuer_issued_total{kind="x509",outcome="error"} 1`,
		`lanyard_issuer_joins_total{method="join_key",outcome="ok"} 1`, `lanyard_issuer_joins_total{method="other",outcome="InvalidArgument"} 1`,
		`lanyard_issuer_rate_limited_total{limit="signing"} 1`,
		`spire_server_rpc_entry_v1_entry_list_entries{status="OK"} 1`,
		`spire_server_rpc_entry_v1_entry_list_entries_elapsed_time_sum{status="OK"} 3`,
		`spire_server_server_ca_sign_x509_svid 1`, `spire_server_server_ca_sign_jwt_svid 1`, `spire_server_server_ca_sign_x509_ca_svid 0`,
		`spire_server_started{trust_domain_id="example_org",version="1_2_3"} 1`)
	for _, line := range []string{
		`(?m)^lanyard_issuer_authority_expiry_seconds\{authority_id="a0",kind="x509",status="old",tainted="true"\} 1\.\d+e\+09$`,
		`(?m)^spire_server_manager_x509_ca_rotate_ttl\{trust_domain_id="example_org"\} 3(600|599\.\d+)$`,
		`(?m)^spire_server_uptime_in_ms 3\.6(0\d+)?e\+06$`, `(?m)^go_goroutines \d+$`, `(?m)^process_open_fds \d+$`,
	} {
		if body := scrape(t, s); !regexp.MustCompile(line).MatchString(body) {
			t.Errorf("nothing matches %s", line)
		}
	}
}

// The names and labels are those that spire-server 1.16.0 was seen to tell.
func TestNamesAreSPIREs(t *testing.T) {
	s := metrics.New(config, sources(), nil)
	for method, name := range map[string]string{
		"/spire.api.server.svid.v1.SVID/MintX509SVID":                             "svid_v1_svid_mint_x509svid",
		"/spire.api.server.svid.v1.SVID/MintJWTSVID":                              "svid_v1_svid_mint_jwtsvid",
		"/spire.api.server.agent.v1.Agent/CreateJoinToken":                        "agent_v1_agent_create_join_token",
		"/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState": "localauthority_v1_local_authority_get_jwt_authority_state",
		"/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority":                  "bundle_v1_bundle_publish_jwt_authority",
		"/spire.api.server.logger.v1.Logger/SetLogLevel":                          "logger_set_log_level",
		"/grpc.health.v1.Health/Check":                                            "health_check",
	} {
		s.Call(method, "NotFound", time.Millisecond)
		want(t, scrape(t, s), "spire_server_rpc_"+name+`{status="NotFound"} 1`, "spire_server_rpc_"+name+`_elapsed_time_count{status="NotFound"} 1`)
	}
}

func TestNamesInCallsMakeNoSeriesWithoutEnd(t *testing.T) {
	s := metrics.New(config, metrics.Sources{TrustDomain: td}, nil)
	for i := range 2000 {
		s.Call("/spire.api.server.x.v1.X/"+strings.Repeat("A", i+1), "Unimplemented", 0)
		s.Call("/\xff/"+strings.Repeat("é", i), "Unimplemented", 0)
	}
	body := scrape(t, s)
	if n := strings.Count(body, "\n"); n > 10_000 {
		t.Errorf("%d lines", n)
	}
	if !strings.Contains(body, `method="other"`) {
		t.Error("those beyond the bound are not counted")
	}
}

func TestLabelsAndPrefixAreConfigured(t *testing.T) {
	s := metrics.New(imetrics.Config{Prometheus: &imetrics.Listener{}, Prefix: "my.server", TrustDomainLabel: true}, sources(), nil)
	want(t, scrape(t, s), `lanyard_issuer_entries{trust_domain="example_org"} 7`, `my_server_server_ca_sign_jwt_svid{trust_domain="example_org"} 0`)
}

func TestANilSetCountsNothing(t *testing.T) {
	s := metrics.New(imetrics.Config{}, sources(), nil)
	if s != nil {
		t.Fatal("a Set that nobody asked for")
	}
	s.Call("/a/b", "OK", 0)
	s.Issued("x509", 0, nil)
	s.Join("join_key", "ok")
	s.RateLimited("signing")
}
