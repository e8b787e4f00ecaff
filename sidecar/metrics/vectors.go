package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "lanyard_sidecar"

// Labels. Each has few values: the configured tunnels, two directions, at most
// maxDomains and two trust domains, and the causes of package record.
const (
	labelTunnel    = "tunnel"
	labelDirection = "direction"
	labelDomain    = "peer_trust_domain"
	labelReason    = "reason"
)

// vectors are the metrics by their labels.
type vectors struct {
	accepted     *prometheus.CounterVec // tunnel, direction
	acceptErrors *prometheus.CounterVec // tunnel, direction
	open         *prometheus.GaugeVec   // tunnel, direction
	ended        *prometheus.CounterVec // tunnel, direction, peer trust domain, reason
	resumed      *prometheus.CounterVec // tunnel, direction
	handshake    *prometheus.HistogramVec
	connect      *prometheus.HistogramVec
	lifetime     *prometheus.HistogramVec
	reloads      *prometheus.CounterVec // result
	reloaded     prometheus.Gauge
}

func newVectors(r prometheus.Registerer) vectors {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	// Buckets are in seconds.
	handshakes := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	lifetimes := []float64{.01, .1, 1, 10, 60, 300, 1800, 3600, 4 * 3600, 24 * 3600}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets},
			[]string{labelTunnel, labelDirection})
		r.MustRegister(v)
		return v
	}
	v := vectors{
		accepted:     counter("accepted_connections_total", "Connections accepted.", labelTunnel, labelDirection),
		acceptErrors: counter("accept_errors_total", "Times that a connection could not be accepted, as when files ran out.", labelTunnel, labelDirection),
		ended: counter("connections_total", "Connections that ended, by how they did; one log record each.",
			labelTunnel, labelDirection, labelDomain, labelReason),
		resumed:   counter("resumed_handshakes_total", "TLS handshakes that resumed a session.", labelTunnel, labelDirection),
		handshake: histogram("handshake_duration_seconds", "Time that completed TLS handshakes took.", handshakes),
		connect:   histogram("connect_duration_seconds", "Time from acceptance until both ends were up.", handshakes),
		lifetime:  histogram("connection_duration_seconds", "Time from acceptance to the end, of connections whose both ends were up.", lifetimes),
		reloads:   counter("reloads_total", "Reloads, by result: ok or error.", "result"),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "open_connections",
			Help: "Connections open now, those in their handshake included."}, []string{labelTunnel, labelDirection}),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "last_successful_reload_timestamp_seconds",
			Help: "When the last successful reload was; 0 before the first."}),
	}
	r.MustRegister(v.open, v.reloaded)
	v.reloads.WithLabelValues("ok")
	v.reloads.WithLabelValues("error")
	return v
}

func (v vectors) remove(key tunnelKey) {
	labels := prometheus.Labels{labelTunnel: key.name, labelDirection: string(key.direction)}
	for _, c := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		v.accepted, v.acceptErrors, v.open, v.ended, v.resumed, v.handshake, v.connect, v.lifetime} {
		c.DeletePartialMatch(labels)
	}
}
