package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// own are the metrics that are counted, under names that SPIRE does not have.
type own struct {
	attestation *prometheus.HistogramVec
	calls       *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	streams     *prometheus.GaugeVec
	signed      *prometheus.CounterVec
	signing     *prometheus.HistogramVec
	syncs       *prometheus.CounterVec
	names       *metrics.Names // of RPCs
	streaming   *sync.Map      // full methods that are streams
}

func newOwn(reg *metrics.Registry) own {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return metrics.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return metrics.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return metrics.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
	}
	return own{
		attestation: histogram("lanyard_agent_attestation_seconds", "Time that an attestor took to know a process, by attestor and outcome: ok or error.",
			[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}, "attestor", "outcome"),
		calls: counter("lanyard_agent_rpcs_total", "Calls and streams that ended, by the service and method without its package, and by the code of the answer.", "method", "code"),
		latency: histogram("lanyard_agent_rpc_seconds", "Time that calls took; streams are not among them.",
			[]float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}, "method"),
		streams: gauge("lanyard_agent_streams", "Streams that are open.", "method"),
		signed:  counter("lanyard_agent_signed_total", "SVIDs the issuer was asked for: x509 or jwt, and whether it gave them.", "kind", "outcome"),
		signing: histogram("lanyard_agent_signing_seconds", "Time that the issuer took to answer when it was asked for SVIDs, several at once for x509.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "kind"),
		syncs:     counter("lanyard_agent_syncs_total", "Attempts to be up to date with the issuer, by outcome: ok or error.", "outcome"),
		names:     &metrics.Names{},
		streaming: &sync.Map{},
	}
}

// call counts a call or a stream, and tells which it was.
func (o *own) call(method, code string, took time.Duration) (streamed bool) {
	name := o.names.Of(method)
	o.calls.WithLabelValues(name, code).Inc()
	if _, streamed = o.streaming.Load(method); !streamed {
		o.latency.WithLabelValues(name).Observe(took.Seconds())
	}
	return streamed
}

// opened counts a stream until what it returns is called.
func (o *own) opened(method string) (closed func()) {
	o.streaming.LoadOrStore(method, true)
	open := o.streams.WithLabelValues(o.names.Of(method))
	open.Inc()
	return open.Dec
}
