package metrics

import (
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
)

// spire are the metrics that are counted under SPIRE's names: those of calls and of what is signed.
type spire struct {
	reg    prometheus.Registerer
	prefix string
	signs  map[string]prometheus.Counter

	mu    sync.Mutex
	calls map[string]*spireCall // guarded by mu; by full method
}

type spireCall struct {
	count   *prometheus.CounterVec
	elapsed *prometheus.SummaryVec
}

func newSPIRE(reg prometheus.Registerer, prefix string) *spire {
	s := &spire{reg: reg, prefix: prefix, calls: map[string]*spireCall{}, signs: map[string]prometheus.Counter{}}
	for kind, name := range map[string]string{"x509": "x509_svid", "downstream": "x509_ca_svid", "jwt": "jwt_svid"} {
		s.signs[kind] = register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "_server_ca_sign_" + name, Help: "server_ca_sign_" + name}))
	}
	return s
}

func (s *spire) signed(kind string) {
	if counter := s.signs[kind]; counter != nil {
		counter.Inc()
	}
}

func (s *spire) call(method, code string, took time.Duration) {
	c := s.of(method)
	if c == nil {
		return
	}
	c.count.WithLabelValues(code).Inc()
	c.elapsed.WithLabelValues(code).Observe(float64(took) / float64(time.Millisecond))
}

// of returns what counts a method; nil if it is none of SPIRE's, or there are too many.
func (s *spire) of(method string) *spireCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.calls[method]; ok {
		return c
	}
	name, ok := rpcName(method)
	if !ok || len(s.calls) >= maxMethods {
		return nil
	}
	c := &spireCall{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{Name: s.prefix + "_rpc_" + name, Help: "rpc_" + name}, []string{"status"}),
		elapsed: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: s.prefix + "_rpc_" + name + "_elapsed_time", Help: "rpc_" + name + "_elapsed_time",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}, MaxAge: time.Minute}, []string{"status"}),
	}
	if s.reg.Register(c.count) != nil || s.reg.Register(c.elapsed) != nil { // a name that another method has
		c = nil
	}
	s.calls[method] = c
	return c
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
		words[i] = snake(word)
	}
	return strings.Join(words, "_"), true
}

// snake makes mint_x509svid of MintX509SVID, as SPIRE does: a capital letter begins a word if a small one is beside it.
func snake(s string) string {
	in := []rune(s)
	var out strings.Builder
	under := false
	for i, r := range in {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) || r > unicode.MaxASCII {
			out.WriteByte('_')
			under = true
			continue
		}
		if unicode.IsUpper(r) && i > 0 && i+1 < len(in) && (unicode.IsLower(in[i+1]) || unicode.IsLower(in[i-1])) && !under {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
		under = false
	}
	return out.String()
}
