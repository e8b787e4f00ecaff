package metrics

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// identityCollector tells the age and expiry of identities and bundles when it is
// asked: the certificate in use changes by itself, and its labels with it.
type identityCollector struct{ *Set }

// identityDescs are the gauges of an identity (labels identity and source) and of
// a bundle (labels trust_domain and source).
type identityDescs struct {
	notBefore, notAfter, updated, connected    *prometheus.Desc
	authorities, bundleNotAfter, bundleUpdated *prometheus.Desc
}

func newIdentityDescs() identityDescs {
	desc := func(of, name, help string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, []string{of, "source"}, nil)
	}
	return identityDescs{
		notBefore:      desc("identity", "svid_not_before_timestamp_seconds", "From when on the certificate in use is valid."),
		notAfter:       desc("identity", "svid_not_after_timestamp_seconds", "When the certificate in use expires."),
		updated:        desc("identity", "svid_last_update_timestamp_seconds", "When the version in use arrived or was read."),
		connected:      desc("identity", "identity_source_connected", "Whether the source gives news, as while the Workload API streams: 1 or 0."),
		authorities:    desc("trust_domain", "bundle_authorities", "Authorities in the bundle of a trust domain."),
		bundleNotAfter: desc("trust_domain", "bundle_not_after_timestamp_seconds", "When the first authority in a bundle expires."),
		bundleUpdated:  desc("trust_domain", "bundle_last_update_timestamp_seconds", "When a bundle arrived or was read."),
	}
}

// Describe implements prometheus.Collector.
func (c identityCollector) Describe(to chan<- *prometheus.Desc) {
	d := newIdentityDescs()
	for _, desc := range []*prometheus.Desc{d.notBefore, d.notAfter, d.updated, d.connected, d.authorities, d.bundleNotAfter, d.bundleUpdated} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (c identityCollector) Collect(to chan<- prometheus.Metric) {
	d := newIdentityDescs()
	g := gauges{to: to, told: map[series]bool{}}
	for _, id := range c.identityStatus() {
		name := label(cmp.Or(id.SPIFFEID, id.Subject))
		source := label(id.Source)
		g.at(d.notBefore, id.NotBefore, name, source)
		g.at(d.notAfter, id.NotAfter, name, source)
		g.at(d.updated, id.LastUpdate, name, source)
		connected := 0.0
		if id.Connected {
			connected = 1
		}
		g.set(d.connected, connected, name, source)
		for _, b := range id.Bundles {
			g.set(d.authorities, float64(b.Authorities), b.TrustDomain, source)
			g.at(d.bundleNotAfter, b.NotAfter, b.TrustDomain, source)
			g.at(d.bundleUpdated, b.Updated, b.TrustDomain, source)
		}
	}
}

// gauges tells each series once: two tunnels may have equal identities of their
// own, and telling one twice would fail the scrape.
type gauges struct {
	to   chan<- prometheus.Metric
	told map[series]bool
}

type series struct {
	desc         *prometheus.Desc
	name, source string
}

func (g gauges) set(desc *prometheus.Desc, v float64, name, source string) {
	if s := (series{desc, name, source}); !g.told[s] {
		g.told[s] = true
		g.to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, name, source)
	}
}

func (g gauges) at(desc *prometheus.Desc, t time.Time, name, source string) {
	if !t.IsZero() {
		g.set(desc, float64(t.UnixMilli())/1000, name, source)
	}
}
