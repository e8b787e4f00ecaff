package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// own are the metrics that are counted, under names that SPIRE does not have.
type own struct {
	calls   *prometheus.HistogramVec
	issued  *prometheus.CounterVec
	signing *prometheus.HistogramVec
	joins   *prometheus.CounterVec
	limited *prometheus.CounterVec
	names   *metrics.Names // of RPCs
	methods attestors
}

// attestors are the methods of node attestation that have a series of their own.
type attestors []string

func (a attestors) known(method string) string {
	if slices.Contains(a, method) {
		return method
	}
	return "other"
}

func newOwn(reg prometheus.Registerer) own {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return metrics.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: ownPrefix + name, Help: help}, labels))
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return metrics.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: ownPrefix + name, Help: help, Buckets: buckets}, labels))
	}
	return own{
		calls: histogram("_rpc_seconds", "Time that calls took, by the service and method without its package, and by the code of the answer.",
			[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, "method", "code"),
		issued:  counter("_issued_total", "What was signed: x509, jwt or downstream, and whether that went well.", "kind", "outcome"),
		signing: histogram("_signing_seconds", "Time that signing one took.", []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1}, "kind"),
		joins:   counter("_joins_total", "Attempts to join, by method of attestation and outcome: ok, or the code of the answer.", "method", "outcome"),
		limited: counter("_rate_limited_total", "Calls refused for coming too often: attestation or signing.", "limit"),
		names:   &metrics.Names{},
		methods: attestors{"join_token", "join_key", "x509pop", "k8s_psat"},
	}
}

func (o *own) call(method, code string, took time.Duration) {
	o.calls.WithLabelValues(o.names.Of(method), code).Observe(took.Seconds())
}
