// Package metrics owns what a node agent counts: under SPIRE's names, so that
// dashboards go on, and under names of its own. It does not decide anything by
// what it counts. How it is told is internal/metrics's.
package metrics

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// DefaultPrefix begins SPIRE's names; those that SPIRE does not have begin with
// lanyard_agent.
const DefaultPrefix = "spire_agent"

// Sources are read at each scrape; a nil one leaves its metrics out.
type Sources struct {
	TrustDomain spiffeid.TrustDomain
	Started     time.Time
	Version     string
	// Cache and JWTs count what is kept.
	Cache func() svidcache.Stats
	JWTs  func() int
	// Contact is how the agent stands with its issuer.
	Contact func() upstream.Contact
	// SVID is the agent's own chain, nil until it has joined.
	SVID func() []*x509.Certificate
	// Connections counts those that workloads have open.
	Connections func() int
	// Identity is for a listener with use_spire_svid or authorized_spiffe_ids.
	Identity mtls.Source
}

// Set is everything that one agent counts. Nothing in it is global. All methods
// may be called from any goroutine, and on a nil Set, which does nothing.
type Set struct {
	reg   *metrics.Registry
	own   own
	spire *spire
}

// New returns a Set; nil, which counts nothing, if cfg collects nothing. It does
// no I/O and starts nothing. log may be nil.
func New(cfg metrics.Config, src Sources, log *slog.Logger) *Set {
	reg := metrics.NewRegistry(cfg, metrics.Options{Prefix: DefaultPrefix, TrustDomain: src.TrustDomain, Identity: src.Identity, Log: log})
	if reg == nil {
		return nil
	}
	reg.MustRegister(collector{src, describe(reg.Prefix)})
	return &Set{reg: reg, own: newOwn(reg), spire: newSPIRE(reg)}
}

// Handler serves the metrics.
func (s *Set) Handler() http.Handler { return s.reg.Handler() }

// Serve answers on l, which it closes, until ctx ends, and returns nil then.
func (s *Set) Serve(ctx context.Context, l net.Listener) error { return s.reg.Serve(ctx, l) }

// Call counts an RPC that ended: its full method, and the name of its code.
func (s *Set) Call(method, code string, took time.Duration) {
	if s == nil {
		return
	}
	streamed := s.own.call(method, code, took)
	s.spire.call(method, code, took, streamed)
}

// StreamInterceptor counts the streams that are open. It does not count calls:
// [Set.Call] does.
func (s *Set) StreamInterceptor(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if s == nil {
		return next(srv, ss)
	}
	defer s.own.opened(info.FullMethod)()
	defer s.spire.opened(info.FullMethod)()
	return next(srv, ss)
}

// Attested counts how one attestor fared with one process.
func (s *Set) Attested(r workloadattest.Report) {
	if s == nil {
		return
	}
	s.own.attestation.WithLabelValues(r.Plugin, outcome(r.Err)).Observe(r.Took.Seconds())
	s.spire.attestor.Count(r.Took, r.Plugin, code(r.Err))
}

// Signed counts an answer of the issuer's: how many SVIDs of a kind, "x509" or
// "jwt", it was asked for at once; with an error, for which it gave none.
func (s *Set) Signed(kind string, n int, took time.Duration, err error) {
	if s == nil {
		return
	}
	s.own.signed.WithLabelValues(kind, outcome(err)).Add(float64(n))
	s.own.signing.WithLabelValues(kind).Observe(took.Seconds())
	if kind == "x509" {
		s.spire.signing.Count(took, code(err))
	}
}

// Synced counts an attempt to be up to date with the issuer; nil: it went well.
func (s *Set) Synced(err error) {
	if s == nil {
		return
	}
	s.own.syncs.WithLabelValues(outcome(err)).Inc()
	s.spire.syncing.Count(-1, code(err))
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// code is what SPIRE tells of an error: its code, Unknown where it has none.
func code(err error) string { return status.Code(err).String() }
