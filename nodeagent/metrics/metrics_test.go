package metrics_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	imetrics "github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/nodeagent/metrics"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// config collects.
var config = imetrics.Config{Prometheus: &imetrics.Listener{}}

var (
	td   = spiffeid.RequireTrustDomainFromString("example.org")
	once = time.Unix(1_800_000_000, 500_000_000)
)

func sources() metrics.Sources {
	return metrics.Sources{
		TrustDomain: td, Started: time.Now().Add(-time.Hour), Version: "lanyard/v1.2.3",
		Cache: func() svidcache.Stats {
			return svidcache.Stats{Entries: 7, SVIDs: 5, Pending: 2, Failing: 1, Expired: 1, Streams: 30, Groups: 3, NextExpiry: once}
		},
		JWTs:        func() int { return 4 },
		Contact:     func() upstream.Contact { return upstream.Contact{Last: time.Now().Add(-time.Minute), Push: true} },
		SVID:        func() []*x509.Certificate { return []*x509.Certificate{{NotAfter: once}} },
		Connections: func() int { return 12 },
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

func TestWhatTheAgentHoldsIsTold(t *testing.T) {
	body := scrape(t, metrics.New(config, sources(), nil))
	want(t, body,
		`lanyard_agent_info{trust_domain_name="example.org",version="lanyard/v1.2.3"} 1`,
		`lanyard_agent_entries 7`,
		`lanyard_agent_svids{state="cached"} 5`, `lanyard_agent_svids{state="pending"} 2`, `lanyard_agent_svids{state="failing"} 1`, `lanyard_agent_svids{state="expired"} 1`,
		`lanyard_agent_subscriptions 30`, `lanyard_agent_subscription_groups 3`, `lanyard_agent_jwt_svids 4`, `lanyard_agent_connections 12`,
		`lanyard_agent_own_svid_expiry_seconds 1.8000000005e+09`, `lanyard_agent_next_svid_expiry_seconds 1.8000000005e+09`,
		`lanyard_agent_issuer_in_sync 1`, `lanyard_agent_issuer_push 1`,
		// Names and labels that spire-agent 1.16.0 was seen to tell.
		`spire_agent_started{trust_domain_id="example_org",version="lanyard_v1_2_3"} 1`,
		`spire_agent_lru_cache_record_map_size{svid_type="X509"} 7`, `spire_agent_lru_cache_svid_map_size{svid_type="X509"} 5`,
		`spire_agent_jwt_svid_cache_size 4`, `spire_agent_sync_entries_total 7`)
	for _, line := range []string{
		`(?m)^lanyard_agent_issuer_contact_age_seconds 6\d(\.\d+)?$`, `(?m)^lanyard_agent_issuer_contact_seconds \d\.\d+e\+09$`,
		`(?m)^spire_agent_uptime_in_ms 3\.6(0\d+)?e\+06$`, `(?m)^go_goroutines \d+$`, `(?m)^process_resident_memory_bytes `,
	} {
		if !regexp.MustCompile(line).MatchString(body) {
			t.Errorf("nothing matches %s", line)
		}
	}
}

// An agent that has not joined tells of no moments that there were not: an alert on age or expiry would take them for 1970.
func TestAnAgentThatHasNotJoinedTellsNoTimes(t *testing.T) {
	src := sources()
	src.Cache = func() svidcache.Stats { return svidcache.Stats{} }
	src.Contact = func() upstream.Contact { return upstream.Contact{Err: errors.New("away")} }
	src.SVID = func() []*x509.Certificate { return nil }
	body := scrape(t, metrics.New(config, src, nil))
	want(t, body, `lanyard_agent_issuer_in_sync 0`, `lanyard_agent_issuer_push 0`, `lanyard_agent_svids{state="cached"} 0`)
	if m := regexp.MustCompile(`(?m)^lanyard_agent_(own_svid|next_svid|issuer_contact).*`).FindString(body); m != "" {
		t.Error(m)
	}
	src.Contact = func() upstream.Contact { return upstream.Contact{Last: time.Now(), Err: errors.New("away")} }
	want(t, scrape(t, metrics.New(config, src, nil)), `lanyard_agent_issuer_in_sync 0`)
}

const (
	fetchX509 = "/SpiffeWorkloadAPI/FetchX509SVID"
	fetchJWT  = "/SpiffeWorkloadAPI/FetchJWTSVID"
)

// open has the set see a stream that ends when the func returned is called.
func open(t *testing.T, s *metrics.Set, method string) (end func()) {
	t.Helper()
	begun, ending, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- s.StreamInterceptor(nil, nil, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error {
			close(begun)
			<-ending
			return nil
		})
		close(ended)
	}()
	<-begun
	return func() {
		close(ending)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestCallsAndStreamsAreCounted(t *testing.T) {
	s := metrics.New(config, sources(), nil)
	endOne, endOther := open(t, s, fetchX509), open(t, s, fetchX509)
	s.Call(fetchJWT, "OK", 3*time.Millisecond)
	s.Call("/grpc.health.v1.Health/Check", "OK", time.Millisecond)
	want(t, scrape(t, s),
		`lanyard_agent_streams{method="SpiffeWorkloadAPI/FetchX509SVID"} 2`,
		`lanyard_agent_rpc_seconds_count{method="SpiffeWorkloadAPI/FetchJWTSVID"} 1`,
		`lanyard_agent_rpc_seconds_bucket{method="SpiffeWorkloadAPI/FetchJWTSVID",le="0.0025"} 0`,
		`lanyard_agent_rpc_seconds_bucket{method="SpiffeWorkloadAPI/FetchJWTSVID",le="0.005"} 1`,
		`lanyard_agent_rpcs_total{code="OK",method="SpiffeWorkloadAPI/FetchJWTSVID"} 1`,
		`spire_agent_workload_api_connection 3`, `spire_agent_workload_api_connections 2`,
		`spire_agent_rpc_workload_api_fetch_jwtsvid{status="OK"} 1`, `spire_agent_rpc_health_check{status="OK"} 1`)
	endOne()
	s.Call(fetchX509, "Canceled", time.Hour)
	body := scrape(t, s)
	want(t, body, `lanyard_agent_streams{method="SpiffeWorkloadAPI/FetchX509SVID"} 1`,
		`lanyard_agent_rpcs_total{code="Canceled",method="SpiffeWorkloadAPI/FetchX509SVID"} 1`,
		`spire_agent_workload_api_connection 3`, `spire_agent_workload_api_connections 1`,
		`spire_agent_rpc_workload_api_fetch_x509svid{status="Canceled"} 1`)
	if strings.Contains(body, `lanyard_agent_rpc_seconds_count{method="SpiffeWorkloadAPI/FetchX509SVID"}`) {
		t.Error("how long a stream lived is among the latencies")
	}
	endOther()
}

func TestNamesOfCallsAreSPIREs(t *testing.T) {
	s := metrics.New(config, sources(), nil)
	for method, name := range map[string]string{
		"/SpiffeWorkloadAPI/FetchJWTBundles":                                             "workload_api_fetch_jwt_bundles",
		"/SpiffeWorkloadAPI/ValidateJWTSVID":                                             "workload_api_validate_jwtsvid",
		"/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets":                  "sds_v3_stream_secrets",
		"/spire.agent.debug.v1.Debug/GetInfo":                                            "debug_get_info",
		"/spire.api.agent.logger.v1.Logger/SetLogLevel":                                  "logger_set_log_level",
		"/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs":   "delegated_identity_subscribe_to_x509_svids",
		"/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509Bundles": "delegated_identity_subscribe_to_x509_bundles",
		"/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs":          "delegated_identity_fetch_jwtsvi_ds",
	} {
		s.Call(method, "NotFound", time.Millisecond)
		want(t, scrape(t, s), "spire_agent_rpc_"+name+`{status="NotFound"} 1`, "spire_agent_rpc_"+name+`_elapsed_time_count{status="NotFound"} 1`)
	}
	s.Call("/lanyard.agent.v1.Admin/Explain", "OK", time.Millisecond)
	if body := scrape(t, s); strings.Contains(body, "rpc_admin") || !strings.Contains(body, `lanyard_agent_rpcs_total{code="OK",method="Admin/Explain"} 1`) {
		t.Error("a call that SPIRE hasn't is to be told under our name alone")
	}
}

func TestWhatTheAgentDoesIsCounted(t *testing.T) {
	s := metrics.New(config, sources(), nil)
	s.Attested(workloadattest.Report{Plugin: "unix", Took: 60 * time.Microsecond, Selectors: 4})
	s.Attested(workloadattest.Report{Plugin: "docker", Took: 30 * time.Millisecond, Err: status.Error(codes.Unavailable, "daemon away")})
	s.Signed("x509", 5, 2*time.Millisecond, nil)
	s.Signed("x509", 3, time.Second, errors.New("no"))
	s.Signed("jwt", 1, time.Millisecond, nil)
	s.Synced(nil)
	s.Synced(errors.New("away"))
	want(t, scrape(t, s),
		`lanyard_agent_attestation_seconds_bucket{attestor="unix",outcome="ok",le="5e-05"} 0`, `lanyard_agent_attestation_seconds_bucket{attestor="unix",outcome="ok",le="0.0001"} 1`,
		`lanyard_agent_attestation_seconds_count{attestor="docker",outcome="error"} 1`,
		`lanyard_agent_signed_total{kind="x509",outcome="ok"} 5`, `lanyard_agent_signed_total{kind="x509",outcome="error"} 3`, `lanyard_agent_signed_total{kind="jwt",outcome="ok"} 1`,
		`lanyard_agent_signing_seconds_count{kind="x509"} 2`,
		`lanyard_agent_syncs_total{outcome="ok"} 1`, `lanyard_agent_syncs_total{outcome="error"} 1`,
		`spire_agent_workload_api_workload_attestor{attestor="unix",status="OK"} 1`, `spire_agent_workload_api_workload_attestor{attestor="docker",status="Unavailable"} 1`,
		`spire_agent_workload_api_workload_attestor_elapsed_time_sum{attestor="docker",status="Unavailable"} 30`,
		`spire_agent_manager_sync_fetch_svids_updates{status="OK"} 1`, `spire_agent_manager_sync_fetch_svids_updates{status="Unknown"} 1`,
		`spire_agent_manager_sync_fetch_entries_updates{status="OK"} 1`, `spire_agent_manager_sync_fetch_entries_updates{status="Unknown"} 1`)
}

func TestANilSetCountsNothing(t *testing.T) {
	s := metrics.New(imetrics.Config{}, sources(), nil)
	if s != nil {
		t.Fatal("a Set that nobody asked for")
	}
	s.Call(fetchJWT, "OK", 0)
	s.Attested(workloadattest.Report{})
	s.Signed("x509", 1, 0, nil)
	s.Synced(nil)
	reached := false
	err := s.StreamInterceptor(nil, nil, nil, func(any, grpc.ServerStream) error { reached = true; return errors.New("as it is") })
	if !reached || err == nil || err.Error() != "as it is" {
		t.Errorf("reached %v, %v", reached, err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := metrics.New(config, metrics.Sources{}, nil).Serve(ctx, l); err != nil {
		t.Error(err)
	}
}
