package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// spire are the metrics that are counted under the names that spire-agent 1.16.0
// was seen to have. Those of what the agent doesn't do are left out: key managers
// as plugins, SVID stores, an LRU that moves.
type spire struct {
	calls    *metrics.Calls
	attestor *metrics.Call
	signing  *metrics.Call
	syncing  *metrics.Call
	services map[string]connections // by full name
}

// connections are what SPIRE counts as such: calls and streams, by service.
type connections struct {
	made prometheus.Counter
	open prometheus.Gauge
}

const (
	workloadAPI = "SpiffeWorkloadAPI"
	sdsAPI      = "envoy.service.secret.v3.SecretDiscoveryService"
	debugAPI    = "spire.agent.debug.v1.Debug"
	loggerAPI   = "spire.api.agent.logger.v1.Logger"
	delegateAPI = "spire.api.agent.delegatedidentity.v1.DelegatedIdentity"
	healthAPI   = "grpc.health.v1.Health"
)

func newSPIRE(reg *metrics.Registry) *spire {
	s := &spire{
		calls:    metrics.NewCalls(reg),
		attestor: metrics.NewCall(reg, "workload_api_workload_attestor", "attestor", "status"),
		signing:  metrics.NewCall(reg, "manager_sync_fetch_svids_updates", "status"),
		syncing:  metrics.NewCall(reg, "manager_sync_fetch_entries_updates", "status"),
		services: map[string]connections{},
	}
	for service, name := range map[string]string{workloadAPI: "workload_api", sdsAPI: "sds_api", debugAPI: "debug_api", loggerAPI: "logger_api", delegateAPI: "delegated_identity_api"} {
		s.services[service] = connections{
			made: metrics.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: reg.Prefix + "_" + name + "_connection", Help: name + "_connection"})),
			open: metrics.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: reg.Prefix + "_" + name + "_connections", Help: name + "_connections"})),
		}
	}
	return s
}

func serviceOf(method string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service
}

// call counts one of SPIRE's methods. A stream was counted as a connection when
// it was opened.
func (s *spire) call(method, code string, took time.Duration, streamed bool) {
	if c, ok := s.services[serviceOf(method)]; ok && !streamed {
		c.made.Inc()
	}
	if name, ok := rpcName(method); ok {
		s.calls.Count("rpc_"+name, code, took)
	}
}

// opened counts a stream until what it returns is called.
func (s *spire) opened(method string) (closed func()) {
	c, ok := s.services[serviceOf(method)]
	if !ok {
		return func() {}
	}
	c.made.Inc()
	c.open.Inc()
	return c.open.Dec
}

// rpcName makes workload_api_fetch_x509svid of /SpiffeWorkloadAPI/FetchX509SVID.
func rpcName(method string) (string, bool) {
	service, call, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	short, ok := map[string]string{
		workloadAPI: "workload_api", sdsAPI: "sds_v3", debugAPI: "debug", loggerAPI: "logger", delegateAPI: "delegated_identity", healthAPI: "health",
	}[service]
	if !ok {
		return "", false
	}
	if call == "SubscribeToX509SVIDs" { // SPIRE's exception
		return short + "_subscribe_to_x509_svids", true
	}
	return short + "_" + metrics.Snake(call), true
}
