package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// spire are the metrics that are counted under SPIRE's names: those of calls and of what is signed.
type spire struct {
	calls *metrics.Calls
	signs map[string]prometheus.Counter
}

func newSPIRE(reg *metrics.Registry) *spire {
	s := &spire{calls: metrics.NewCalls(reg), signs: map[string]prometheus.Counter{}}
	for kind, name := range map[string]string{"x509": "x509_svid", "downstream": "x509_ca_svid", "jwt": "jwt_svid"} {
		s.signs[kind] = metrics.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: reg.Prefix + "_server_ca_sign_" + name, Help: "server_ca_sign_" + name}))
	}
	return s
}

func (s *spire) signed(kind string) {
	if counter := s.signs[kind]; counter != nil {
		counter.Inc()
	}
}

// call counts one of SPIRE's methods.
func (s *spire) call(method, code string, took time.Duration) {
	if name, ok := rpcName(method); ok {
		s.calls.Count("rpc_"+name, code, took)
	}
}

const spirePackage = "/spire.api.server."

// rpcName makes entry_v1_entry_list_entries of /spire.api.server.entry.v1.Entry/ListEntries.
func rpcName(method string) (string, bool) {
	rest, ok := strings.CutPrefix(method, spirePackage)
	if !ok {
		if rest, ok = strings.CutPrefix(method, "/grpc.health.v1."); !ok {
			return "", false
		}
	}
	rest = strings.TrimPrefix(rest, "logger.v1.") // SPIRE shortens that one
	service, call, _ := strings.Cut(rest, "/")
	words := append(strings.Split(service, "."), call)
	for i, word := range words {
		words[i] = metrics.Snake(word)
	}
	return strings.Join(words, "_"), true
}
