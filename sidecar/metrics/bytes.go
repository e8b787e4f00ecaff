package metrics

import "github.com/prometheus/client_golang/prometheus"

// byteCollector tells the live byte counters when it is asked, so that moving
// bytes costs no more than an addition.
type byteCollector struct{ *Set }

func byteDescs() (forwarded, returned *prometheus.Desc) {
	labels := []string{labelTunnel, labelDirection, labelDomain}
	return prometheus.NewDesc(namespace+"_forwarded_bytes_total", "Bytes moved towards the targets, live.", labels, nil),
		prometheus.NewDesc(namespace+"_returned_bytes_total", "Bytes moved back from the targets, live.", labels, nil)
}

// Describe implements prometheus.Collector.
func (c byteCollector) Describe(to chan<- *prometheus.Desc) {
	forwarded, returned := byteDescs()
	to <- forwarded
	to <- returned
}

// Collect implements prometheus.Collector.
func (c byteCollector) Collect(to chan<- prometheus.Metric) {
	forwarded, returned := byteDescs()
	for _, t := range c.all() {
		peers := t.peers.Load()
		if peers == nil {
			continue
		}
		for _, p := range *peers {
			labels := []string{t.key.name, string(t.key.direction), p.domain}
			to <- prometheus.MustNewConstMetric(forwarded, prometheus.CounterValue, float64(p.bytes.Forward.Load()), labels...)
			to <- prometheus.MustNewConstMetric(returned, prometheus.CounterValue, float64(p.bytes.Backward.Load()), labels...)
		}
	}
}
