// Package metrics owns what an issuer counts: under SPIRE's names, so that dashboards go on, and under names of its own. It does
// not decide anything by what it counts, and it pushes nothing anywhere. How it is told is internal/metrics's.
package metrics

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/mtls"
)

// DefaultPrefix begins SPIRE's names; ownPrefix those that SPIRE does not have.
const (
	DefaultPrefix = "spire_server"
	ownPrefix     = "lanyard_issuer"
)

// Sources are read at each scrape; a nil one leaves its metrics out.
type Sources struct {
	TrustDomain    spiffeid.TrustDomain
	Started        time.Time
	Version        string
	Entries        func() int
	Agents         func() Agents
	Authorities    func() []Authority
	BundleSequence func() uint64
	Store          func() Store
	// Identity is for a listener with use_spire_svid or authorized_spiffe_ids.
	Identity mtls.Source
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
	QuotaBytes int64 // 0 is none
	Revision   int64
}

// Set is everything that one issuer counts. Nothing in it is global. All methods may be called from any goroutine, and on a
// nil Set, which does nothing.
type Set struct {
	reg   *metrics.Registry
	own   own
	spire *spire
}

// New returns a Set; nil, which counts nothing, if cfg collects nothing. It does no I/O and starts nothing. log may be nil.
func New(cfg metrics.Config, src Sources, log *slog.Logger) *Set {
	reg := metrics.NewRegistry(cfg, metrics.Options{Prefix: DefaultPrefix, TrustDomain: src.TrustDomain, Identity: src.Identity, Log: log})
	if reg == nil {
		return nil
	}
	reg.MustRegister(ownCollector{src, describe(reg.Prefix)})
	return &Set{reg: reg, own: newOwn(reg), spire: newSPIRE(reg)}
}

// Handler serves the metrics.
func (s *Set) Handler() http.Handler { return s.reg.Handler() }

// Serve answers on l, which it closes, until ctx ends, and returns nil then.
func (s *Set) Serve(ctx context.Context, l net.Listener) error { return s.reg.Serve(ctx, l) }

// Call counts an RPC that ended: its full method, /spire.api.server.entry.v1.Entry/ListEntries, and the name of its code.
func (s *Set) Call(method, code string, took time.Duration) {
	if s == nil {
		return
	}
	s.own.call(method, code, took)
	s.spire.call(method, code, took)
}

// Issued counts what was signed: "x509", "jwt" or "downstream"; with an error, what was not.
func (s *Set) Issued(kind string, took time.Duration, err error) {
	if s == nil {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = "error"
	} else {
		s.spire.signed(kind)
	}
	s.own.issued.WithLabelValues(kind, outcome).Inc()
	s.own.signing.WithLabelValues(kind).Observe(took.Seconds())
}

// Join counts an attempt to join: the method, and "ok" or the name of the code of its failure. The method is what a stranger
// named: only those that are known get a series of their own.
func (s *Set) Join(method, outcome string) {
	if s == nil {
		return
	}
	s.own.joins.WithLabelValues(s.own.methods.known(method), outcome).Inc()
}

// RateLimited counts a call that was refused for coming too often: "attestation" or "signing".
func (s *Set) RateLimited(limit string) {
	if s != nil {
		s.own.limited.WithLabelValues(limit).Inc()
	}
}
