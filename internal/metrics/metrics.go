// Package metrics owns how a role's metrics are told to Prometheus: who may scrape them, which labels and prefixes they have,
// as SPIRE is configured for that, and how names that callers choose stay few. What is counted is the role's own.
package metrics

import (
	"cmp"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// Options are what a role brings.
type Options struct {
	// Prefix begins the names that SPIRE has too, unless the configuration says otherwise: "spire_server" or "spire_agent".
	Prefix      string
	TrustDomain spiffeid.TrustDomain
	// Identity is the role's own, for a listener with use_spire_svid or authorized_spiffe_ids; nil: it has none.
	Identity mtls.Source
	// Log may be nil.
	Log *slog.Logger
}

// Registry is where the metrics of one role are registered. Nothing in it is global. All methods may be called from any
// goroutine.
type Registry struct {
	// Registerer gives all metrics the labels that the configuration asks for.
	prometheus.Registerer
	// Prefix begins the names that SPIRE has too.
	Prefix string

	cfg      Config
	identity mtls.Source
	log      *slog.Logger
	registry *prometheus.Registry
}

// NewRegistry returns a Registry that has the metrics of Go and of the process; nil if cfg collects nothing. It does no I/O
// and starts nothing.
func NewRegistry(cfg Config, o Options) *Registry {
	if cfg.Prometheus == nil {
		return nil
	}
	r := &Registry{
		Prefix: Sanitize(cmp.Or(cfg.Prefix, o.Prefix)),
		cfg:    cfg, identity: o.Identity, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)), registry: prometheus.NewRegistry(),
	}
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.Registerer = prometheus.WrapRegistererWith(constLabels(cfg, o.TrustDomain), r.registry)
	return r
}

// constLabels are those that all metrics have, as in SPIRE.
func constLabels(cfg Config, td spiffeid.TrustDomain) prometheus.Labels {
	labels := prometheus.Labels{}
	if host, err := os.Hostname(); err == nil && cfg.HostnameLabel {
		labels["host"] = host
	}
	if cfg.TrustDomainLabel {
		labels["trust_domain"] = Sanitize(td.Name())
	}
	return labels
}

// Register registers c, and returns it. A name that is taken is a mistake in the program: it panics.
func Register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	reg.MustRegister(c)
	return c
}

// Sanitize is what SPIRE makes of a value of a label, and of a name.
func Sanitize(s string) string {
	return strings.NewReplacer(".", "_", "-", "_", " ", "_", "=", "_", "/", "_").Replace(strings.ToValidUTF8(s, "_"))
}
