// Package metrics owns what an issuer counts and how that is told to Prometheus: under SPIRE's names, so that dashboards go
// on, and under names of its own. It does not decide anything by what it counts, and it pushes nothing anywhere.
package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config says who gets the metrics and how they are named. The zero Config collects nothing.
type Config struct {
	// Prometheus is the listener that is scraped; nil collects nothing.
	Prometheus *Listener
	// Prefix begins the names that SPIRE has too; "" is "spire_server".
	Prefix string
	// TrustDomainLabel and HostnameLabel add a label to every series; its host's only to gauges that are SPIRE's.
	TrustDomainLabel, HostnameLabel bool
	// Filter says which of them are told.
	Filter Filter
}

// Filter chooses by the beginnings of names as SPIRE writes them, with dots and without the prefix, and by labels. What is
// allowed and blocked is allowed by the longer beginning, as in SPIRE.
type Filter struct {
	AllowedPrefixes, BlockedPrefixes []string
	AllowedLabels, BlockedLabels     []string
}

// Listener is where metrics are served, at any path.
type Listener struct {
	Host string // "" is localhost
	Port int    // 0 is any that is free
	TLS  *TLS   // nil serves plain HTTP
}

// TLS says how the listener identifies itself and whom it answers.
type TLS struct {
	CertFile, KeyFile string // PEM; read again when they change
	ClientCAFile      string // PEM; clients then need a certificate by one of them
	UseSVID           bool   // instead of the files: the issuer's own X.509-SVID
	// AuthorizedIDs are the clients answered, by their X.509-SVIDs; none asks for no certificate.
	AuthorizedIDs []spiffeid.ID
}

// Sources are read at each scrape; a nil one leaves its metrics out.
type Sources struct {
	TrustDomain    spiffeid.TrustDomain
	Started        time.Time
	Entries        func() int
	Agents         func() Agents
	Authorities    func() []Authority
	BundleSequence func() uint64
	Store          func() Store
}

// Agents counts the joined agents by what they are now.
type Agents struct{ Live, Expired, Banned int }

// Authority is one that can sign, or could.
type Authority struct {
	Kind      string // "x509" or "jwt"
	ID        string
	Status    string // "active", "prepared" or "old"
	Tainted   bool
	ExpiresAt time.Time
}

// Store is how the records are.
type Store struct {
	Healthy    bool
	SizeBytes  int64
	QuotaBytes int64
	Revision   int64
}

// Set is everything that one issuer counts. Nothing in it is global. All methods may be called from any goroutine, and on a
// nil Set.
type Set struct {
	cfg      Config
	src      Sources
	log      *slog.Logger
	registry *prometheus.Registry
}

// New returns a Set; nil, which counts nothing, if cfg collects nothing. It does no I/O and starts nothing.
func New(cfg Config, src Sources, log *slog.Logger) *Set {
	if cfg.Prometheus == nil {
		return nil
	}
	return &Set{cfg: cfg, src: src, log: log, registry: prometheus.NewRegistry()}
}

// Call counts an RPC that ended: its full method, /spire.api.server.entry.v1.Entry/ListEntries, and the name of its code.
func (s *Set) Call(method, code string, took time.Duration) {}

// Issued counts what was signed: "agent", "workload", "server", "downstream", "mint", "jwt".
func (s *Set) Issued(kind string) {}

// Join counts an attempt to join: the method, and "ok" or the name of the code of its failure.
func (s *Set) Join(method, outcome string) {}

// RateLimited counts a call that was refused for coming too often: "attestation" or "signing".
func (s *Set) RateLimited(limit string) {}

// Handler serves the metrics.
func (s *Set) Handler() http.Handler { return http.NotFoundHandler() }
