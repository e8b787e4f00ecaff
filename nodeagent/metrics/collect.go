package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// descs are the metrics that are read when they are asked for.
type descs struct {
	info, started, ownExpiry, nextExpiry                  *prometheus.Desc
	entries, svids, subscriptions, groups, jwts           *prometheus.Desc
	contact, age, inSync, push, connections               *prometheus.Desc
	spireStarted, spireUptime                             *prometheus.Desc
	spireEntries, spireRecords, spireSVIDs, spireJWTSVIDs *prometheus.Desc
}

func describe(prefix string) descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	theirs := func(name string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+"_"+name, name, labels, nil)
	}
	return descs{
		info:          desc("lanyard_agent_info", "1, with the version and the trust domain.", "version", "trust_domain_name"),
		started:       desc("lanyard_agent_start_time_seconds", "When the agent started, in Unix seconds."),
		ownExpiry:     desc("lanyard_agent_own_svid_expiry_seconds", "When the agent's own X.509-SVID ends, in Unix seconds."),
		nextExpiry:    desc("lanyard_agent_next_svid_expiry_seconds", "When the first of the workloads' X.509-SVIDs ends, in Unix seconds."),
		entries:       desc("lanyard_agent_entries", "Registration entries that the agent may serve."),
		svids:         desc("lanyard_agent_svids", "X.509-SVIDs of workloads: cached (good), pending (not there yet), failing (not had at the last try), expired (ended before they were renewed).", "state"),
		subscriptions: desc("lanyard_agent_subscriptions", "Streams that wait for changes of X.509-SVIDs or bundles."),
		groups:        desc("lanyard_agent_subscription_groups", "Kinds of callers that the subscriptions are of: those of one kind share one answer."),
		jwts:          desc("lanyard_agent_jwt_svids", "JWT-SVIDs that are kept."),
		contact:       desc("lanyard_agent_issuer_contact_seconds", "When an issuer last said something, in Unix seconds."),
		age:           desc("lanyard_agent_issuer_contact_age_seconds", "How long ago that was."),
		inSync:        desc("lanyard_agent_issuer_in_sync", "1 if the last attempt to be up to date with the issuer went well, else 0."),
		push:          desc("lanyard_agent_issuer_push", "1 if the issuer tells of changes by itself, 0 if it is polled."),
		connections:   desc("lanyard_agent_connections", "Connections that workloads have open."),

		spireStarted:  theirs("started", "trust_domain_id", "version"),
		spireUptime:   theirs("uptime_in_ms"),
		spireEntries:  theirs("sync_entries_total"),
		spireRecords:  theirs("lru_cache_record_map_size", "svid_type"),
		spireSVIDs:    theirs("lru_cache_svid_map_size", "svid_type"),
		spireJWTSVIDs: theirs("jwt_svid_cache_size"),
	}
}

// collector reads the sources at each scrape.
type collector struct {
	src  Sources
	desc descs
}

// Describe implements prometheus.Collector: what there is depends on the sources.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc.info }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
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
	if c.src.SVID != nil {
		if chain := c.src.SVID(); len(chain) > 0 {
			gauge(c.desc.ownExpiry, seconds(chain[0].NotAfter))
		}
	}
	if c.src.Connections != nil {
		gauge(c.desc.connections, float64(c.src.Connections()))
	}
	if c.src.JWTs != nil {
		kept := float64(c.src.JWTs())
		gauge(c.desc.jwts, kept)
		gauge(c.desc.spireJWTSVIDs, kept)
	}
	c.cache(gauge)
	c.contact(gauge)
}

func (c collector) cache(gauge func(*prometheus.Desc, float64, ...string)) {
	if c.src.Cache == nil {
		return
	}
	stats := c.src.Cache()
	gauge(c.desc.entries, float64(stats.Entries))
	gauge(c.desc.spireEntries, float64(stats.Entries))
	gauge(c.desc.spireRecords, float64(stats.Entries), "X509")
	gauge(c.desc.spireSVIDs, float64(stats.SVIDs), "X509")
	gauge(c.desc.svids, float64(stats.SVIDs), "cached")
	gauge(c.desc.svids, float64(stats.Pending), "pending")
	gauge(c.desc.svids, float64(stats.Failing), "failing")
	gauge(c.desc.svids, float64(stats.Expired), "expired")
	gauge(c.desc.subscriptions, float64(stats.Streams))
	gauge(c.desc.groups, float64(stats.Groups))
	if !stats.NextExpiry.IsZero() {
		gauge(c.desc.nextExpiry, seconds(stats.NextExpiry))
	}
}

// contact leaves out when an issuer was last heard of while none was: an alert on
// its age would take that for half a century.
func (c collector) contact(gauge func(*prometheus.Desc, float64, ...string)) {
	if c.src.Contact == nil {
		return
	}
	contact := c.src.Contact()
	gauge(c.desc.inSync, oneIf(contact.Err == nil && !contact.Last.IsZero()))
	gauge(c.desc.push, oneIf(contact.Push))
	if !contact.Last.IsZero() {
		gauge(c.desc.contact, seconds(contact.Last))
		gauge(c.desc.age, max(0, time.Since(contact.Last).Seconds()))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
