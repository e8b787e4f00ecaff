package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// descs are the metrics that are read when they are asked for.
type descs struct {
	info, started, entries, agents, authorities, expiry, sequence *prometheus.Desc
	storeHealthy, storeSize, storeQuota, storeRevision            *prometheus.Desc
	spireStarted, spireUptime, spireExpiry, spireTTL              *prometheus.Desc
}

func describe(prefix string) descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(ownPrefix+name, help, labels, nil)
	}
	theirs := func(name string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+"_"+name, name, labels, nil)
	}
	return descs{
		info:          desc("_info", "1, with the version and the trust domain.", "version", "trust_domain_name"),
		started:       desc("_start_time_seconds", "When the issuer started, in Unix seconds."),
		entries:       desc("_entries", "Registration entries, expired ones too until they are pruned."),
		agents:        desc("_agents", "Agents that have joined: live, expired or banned.", "state"),
		authorities:   desc("_authorities", "Authorities that can sign or are in the bundle for what they signed.", "kind", "status"),
		expiry:        desc("_authority_expiry_seconds", "When an authority ends, in Unix seconds.", "kind", "status", "authority_id", "tainted"),
		sequence:      desc("_bundle_sequence", "Sequence number of the bundle."),
		storeHealthy:  desc("_store_healthy", "1 while the store works, else 0."),
		storeSize:     desc("_store_size_bytes", "Size of the store on disk."),
		storeQuota:    desc("_store_quota_bytes", "Size from which the store takes no more writes."),
		storeRevision: desc("_store_revision", "Revision of the last change."),
		spireStarted:  theirs("started", "trust_domain_id", "version"),
		spireUptime:   theirs("uptime_in_ms"),
		spireExpiry:   theirs("manager_x509_ca_rotate_expiration", "trust_domain_id"),
		spireTTL:      theirs("manager_x509_ca_rotate_ttl", "trust_domain_id"),
	}
}

// ownCollector reads the sources at each scrape.
type ownCollector struct {
	src  Sources
	desc descs
}

// Describe implements prometheus.Collector: what there is depends on the sources.
func (c ownCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc.info }

// Collect implements prometheus.Collector.
func (c ownCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	td := c.src.TrustDomain.Name()
	gauge(c.desc.info, 1, c.src.Version, td)
	gauge(c.desc.spireStarted, 1, metrics.Sanitize(td), metrics.Sanitize(c.src.Version))
	if !c.src.Started.IsZero() {
		gauge(c.desc.started, seconds(c.src.Started))
		gauge(c.desc.spireUptime, float64(time.Since(c.src.Started).Milliseconds()))
	}
	if c.src.Entries != nil {
		gauge(c.desc.entries, float64(c.src.Entries()))
	}
	if c.src.Agents != nil {
		agents := c.src.Agents()
		gauge(c.desc.agents, float64(agents.Live), "live")
		gauge(c.desc.agents, float64(agents.Expired), "expired")
		gauge(c.desc.agents, float64(agents.Banned), "banned")
	}
	if c.src.BundleSequence != nil {
		gauge(c.desc.sequence, float64(c.src.BundleSequence()))
	}
	c.authorities(gauge)
	c.store(gauge)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (c ownCollector) authorities(gauge func(*prometheus.Desc, float64, ...string)) {
	if c.src.Authorities == nil {
		return
	}
	counts := map[[2]string]int{}
	for _, kind := range []string{"x509", "jwt"} {
		for _, status := range []string{"active", "prepared", "old"} {
			counts[[2]string{kind, status}] = 0 // an alert wants a 0 where there is none
		}
	}
	seen := map[string]bool{}
	for _, a := range c.src.Authorities() {
		if seen[a.Kind+a.ID] {
			continue
		}
		seen[a.Kind+a.ID] = true
		counts[[2]string{a.Kind, a.Status}]++
		tainted := "false"
		if a.Tainted {
			tainted = "true"
		}
		gauge(c.desc.expiry, seconds(a.ExpiresAt), a.Kind, a.Status, a.ID, tainted)
		if a.Kind == "x509" && a.Status == "active" {
			td := metrics.Sanitize(c.src.TrustDomain.Name())
			gauge(c.desc.spireExpiry, seconds(a.ExpiresAt), td)
			gauge(c.desc.spireTTL, time.Until(a.ExpiresAt).Seconds(), td)
		}
	}
	for key, n := range counts {
		gauge(c.desc.authorities, float64(n), key[0], key[1])
	}
}

func (c ownCollector) store(gauge func(*prometheus.Desc, float64, ...string)) {
	if c.src.Store == nil {
		return
	}
	store := c.src.Store()
	healthy := 0.0
	if store.Healthy {
		healthy = 1
	}
	gauge(c.desc.storeHealthy, healthy)
	gauge(c.desc.storeSize, float64(store.SizeBytes))
	gauge(c.desc.storeRevision, float64(store.Revision))
	if store.QuotaBytes > 0 {
		gauge(c.desc.storeQuota, float64(store.QuotaBytes))
	}
}
