// Package spireconf owns what the configuration files of SPIRE's server and agent have in common, and what goes with it in the
// process: telemetry {}, health_checks {}, plugins {} as blocks, profiles, and signals that don't end it. What plugins there
// are, and all else, is the role's own.
package spireconf

import (
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
)

// Telemetry is telemetry {}.
type Telemetry struct {
	Prometheus *Prometheus `hcl:"Prometheus,block"`
	DogStatsd  []Sink      `hcl:"DogStatsd,block"`
	Statsd     []Sink      `hcl:"Statsd,block"`
	M3         []Sink      `hcl:"M3,block"`
	InMem      *struct{}   `hcl:"InMem,block"`

	MetricPrefix           string   `hcl:"MetricPrefix,optional"`
	EnableTrustDomainLabel bool     `hcl:"EnableTrustDomainLabel,optional"`
	EnableHostnameLabel    *bool    `hcl:"EnableHostnameLabel,optional"`
	AllowedPrefixes        []string `hcl:"AllowedPrefixes,optional"`
	BlockedPrefixes        []string `hcl:"BlockedPrefixes,optional"`
	AllowedLabels          []string `hcl:"AllowedLabels,optional"`
	BlockedLabels          []string `hcl:"BlockedLabels,optional"`
}

// Prometheus is the listener that is scraped.
type Prometheus struct {
	Host string `hcl:"host,optional"`
	Port int    `hcl:"port,optional"`
	TLS  *TLS   `hcl:"tls,block"`
}

// TLS is how that identifies itself, and whom it answers.
type TLS struct {
	CertFile            string        `hcl:"cert_file,optional"`
	KeyFile             string        `hcl:"key_file,optional"`
	ClientCAFile        string        `hcl:"client_ca_file,optional"`
	UseSPIRESVID        bool          `hcl:"use_spire_svid,optional"`
	AuthorizedSPIFFEIDs []spiffeid.ID `hcl:"authorized_spiffe_ids,optional"`
}

// Sink is where SPIRE would send metrics to.
type Sink struct {
	Address string `hcl:"address,optional"`
	Env     string `hcl:"env,optional"`
}

// Config is what the block says; nil says that nothing is collected.
func (t *Telemetry) Config() metrics.Config {
	if t == nil || t.Prometheus == nil {
		return metrics.Config{}
	}
	c := metrics.Config{
		Prometheus:       &metrics.Listener{Host: strings.Trim(t.Prometheus.Host, "[]"), Port: t.Prometheus.Port},
		Prefix:           t.MetricPrefix,
		TrustDomainLabel: t.EnableTrustDomainLabel, HostnameLabel: t.EnableHostnameLabel == nil || *t.EnableHostnameLabel,
		Filter: metrics.Filter{AllowedPrefixes: t.AllowedPrefixes, BlockedPrefixes: t.BlockedPrefixes, AllowedLabels: t.AllowedLabels, BlockedLabels: t.BlockedLabels},
	}
	if tls := t.Prometheus.TLS; tls != nil {
		c.Prometheus.TLS = &metrics.TLS{CertFile: tls.CertFile, KeyFile: tls.KeyFile, ClientCAFile: tls.ClientCAFile, UseSVID: tls.UseSPIRESVID, AuthorizedIDs: tls.AuthorizedSPIFFEIDs}
	}
	return c
}

// HealthChecks is health_checks {}.
type HealthChecks struct {
	ListenerEnabled bool   `hcl:"listener_enabled,optional"`
	BindAddress     string `hcl:"bind_address,optional"`
	BindPort        *int   `hcl:"bind_port,optional"`
	ReadyPath       string `hcl:"ready_path,optional"`
	LivePath        string `hcl:"live_path,optional"`
}

// Config is what the block says; nil says that nobody listens.
func (h *HealthChecks) Config() health.Config {
	if h == nil || !h.ListenerEnabled {
		return health.Config{}
	}
	c := health.Config{Enabled: true, Address: strings.Trim(h.BindAddress, "[]"), Port: health.DefaultPort, ReadyPath: h.ReadyPath, LivePath: h.LivePath}
	if h.BindPort != nil {
		c.Port = *h.BindPort
	}
	return c
}

// CheckListeners finds what is wrong with telemetry {} and health_checks {}.
func CheckListeners(conf *hclconf.File, m metrics.Config, h health.Config) {
	CheckBlock(conf, "telemetry.Prometheus", m.Validate())
	CheckBlock(conf, "health_checks", h.Validate())
}

// CheckBlock adds each line of err at the key that it begins with, or at the block itself.
func CheckBlock(conf *hclconf.File, block string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, " ")
		if path := block + "." + strings.TrimSuffix(key, ":"); conf.Has(path) {
			conf.Errorf(conf.At(path), "%s.%s", block, line)
			continue
		}
		conf.Errorf(conf.At(block), "%s: %s", block, line)
	}
}

// Idle are settings that are read, and mean nothing here, each with why.
type Idle map[string]string

// NoteIdle tells which of them the file has, and which of those that both of SPIRE's files can have.
func NoteIdle(conf *hclconf.File, idle Idle) {
	all := Idle{}
	maps.Copy(all, idle)
	for name, system := range map[string]string{"DogStatsd": "DogStatsD", "Statsd": "StatsD", "M3": "M3"} {
		all["telemetry."+name] = "metrics are not sent to " + system + "; Prometheus { port = 9988 } serves them"
	}
	all["telemetry.InMem"] = "metrics are not printed on SIGUSR1; Prometheus { port = 9988 } serves them"
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if conf.Has(path) {
			conf.Notef(conf.At(path), "%s is not used: %s", path, all[path])
		}
	}
}
