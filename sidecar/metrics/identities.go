package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// identityCollector tells the age and expiry of identities and bundles when it is asked.
type identityCollector struct{ *Set }

func identityDescs() map[string]*prometheus.Desc {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return map[string]*prometheus.Desc{
		"before":      desc("svid_not_before_timestamp_seconds", "From when on the certificate in use is valid.", "identity", "source"),
		"after":       desc("svid_not_after_timestamp_seconds", "When the certificate in use expires.", "identity", "source"),
		"updated":     desc("svid_last_update_timestamp_seconds", "When the identity's source last gave one.", "identity", "source"),
		"connected":   desc("workload_api_connected", "Whether there is a stream from the source of an identity: 1 or 0.", "identity", "source"),
		"authorities": desc("bundle_authorities", "Authorities in the bundle of a trust domain.", "trust_domain", "source"),
		"expiry":      desc("bundle_not_after_timestamp_seconds", "When the first authority of a trust domain's bundle expires.", "trust_domain", "source"),
		"age":         desc("bundle_last_update_timestamp_seconds", "When the bundle of a trust domain was last updated.", "trust_domain", "source"),
	}
}

// Describe implements prometheus.Collector.
func (c identityCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range identityDescs() {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c identityCollector) Collect(to chan<- prometheus.Metric) {
	descs := identityDescs()
	type key struct{ what, name, source string }
	told := map[key]bool{} // two tunnels may have equal identities of their own
	gauge := func(what string, v float64, name, source string) {
		if k := (key{what, name, source}); !told[k] {
			told[k] = true
			to <- prometheus.MustNewConstMetric(descs[what], prometheus.GaugeValue, v, name, source)
		}
	}
	at := func(what string, t time.Time, name, source string) {
		if !t.IsZero() {
			gauge(what, float64(t.UnixMilli())/1000, name, source)
		}
	}
	for _, id := range c.identityStatus() {
		name := id.SPIFFEID
		at("after", id.NotAfter, name, "")
		at("updated", id.LastUpdate, name, "")
		gauge("connected", number(id.Connected), name, "")
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
