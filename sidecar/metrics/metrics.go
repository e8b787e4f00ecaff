// Package metrics owns what the sidecar counts and how that is told: to
// Prometheus, and under ghostunnel's names as JSON and to Graphite. It does not
// log, listen, or decide anything by what it counts.
package metrics

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// The defaults of Config; ghostunnel's.
const (
	DefaultPrefix   = "ghostunnel"
	DefaultInterval = 30 * time.Second
)

// Config says who gets the metrics. The zero Config collects nothing.
type Config struct {
	// Serve is true if a status server offers Set's handlers.
	Serve bool
	// Prefix begins the names in JSON and Graphite; "" is DefaultPrefix.
	Prefix string
	// Graphite is the HOST:PORT that the metrics are pushed to as Graphite's
	// plaintext protocol; "" for none.
	Graphite string
	// URL is where they are POSTed to as JSON; "" for none. It may hold a password.
	URL string
	// Interval is the time between two pushes; 0 is DefaultInterval.
	Interval time.Duration

	Push Push         // how pushes connect
	Log  *slog.Logger // nil logs nothing
}

// enabled reports whether anybody gets to see the metrics.
func (c Config) enabled() bool { return c.Serve || c.Graphite != "" || c.URL != "" }

// IdentityStatus is an identity and the tunnels that use it.
type IdentityStatus struct {
	Tunnels []string
	identity.Status
}

// Set is everything that is counted in one sidecar. Nothing in it is global.
// All methods may be called from any goroutine.
type Set struct {
	cfg        Config
	registry   *prometheus.Registry // nil if nothing is collected
	vectors    vectors
	totals     totals
	domains    domains
	identities atomic.Pointer[func() []IdentityStatus]

	mu      sync.Mutex
	tunnels map[tunnelKey]*Tunnel // guarded by mu
}

type tunnelKey struct {
	name      string
	direction record.Direction
}

func newTunnelKey(name string, d record.Direction) tunnelKey {
	return tunnelKey{label(name), d}
}

// label makes s a label's value, which has to be UTF-8.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// New returns a Set for cfg. It does no I/O and starts nothing.
func New(cfg Config) *Set {
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{cfg: cfg, tunnels: map[tunnelKey]*Tunnel{}}
	s.domains.bundles = s.bundles
	if !cfg.enabled() {
		return s
	}
	s.registry = prometheus.NewRegistry()
	s.vectors = newVectors(s.registry)
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		byteCollector{s}, identityCollector{s})
	return s
}

// Identities has f asked for the identities in use whenever the metrics are.
func (s *Set) Identities(f func() []IdentityStatus) { s.identities.Store(&f) }

func (s *Set) identityStatus() []IdentityStatus {
	if f := s.identities.Load(); f != nil {
		return (*f)()
	}
	return nil
}

func (s *Set) bundles() []string {
	var names []string
	for _, id := range s.identityStatus() {
		for _, b := range id.Bundles {
			names = append(names, b.TrustDomain)
		}
	}
	return names
}

// Tunnel returns what counts the connections of a tunnel; the same for the same
// name and direction. It is nil, which counts nothing, if nobody gets to see it.
func (s *Set) Tunnel(name string, d record.Direction) *Tunnel {
	if s.registry == nil {
		return nil
	}
	key := newTunnelKey(name, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tunnels[key]
	if !ok {
		t = newTunnel(s, key)
		s.tunnels[key] = t
	}
	t.gone.Store(false)
	return t
}

// Retain drops the series of all tunnels but those that keep tells, each once its
// last connection has ended. What they counted stays in the totals in ghostunnel's
// format.
func (s *Set) Retain(keep func(name string, d record.Direction) bool) {
	if s.registry == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.tunnels {
		if t.gone.Store(!keep(key.name, key.direction)); t.isOver() {
			s.drop(t)
		}
	}
}

// ended is for a tunnel that has no connection at the moment.
func (s *Set) ended(t *Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tunnels[t.key] == t && t.isOver() {
		s.drop(t)
	}
}

// drop must be called with mu held.
func (s *Set) drop(t *Tunnel) {
	delete(s.tunnels, t.key)
	s.vectors.remove(t.key)
}

// all returns the tunnels there are.
func (s *Set) all() []*Tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Tunnel, 0, len(s.tunnels))
	for _, t := range s.tunnels {
		list = append(list, t)
	}
	return list
}

// Reloaded counts a reload, which failed if err is not nil.
func (s *Set) Reloaded(err error) {
	switch {
	case s.registry == nil:
	case err != nil:
		s.vectors.reloads.WithLabelValues("error").Inc()
	default:
		s.vectors.reloads.WithLabelValues("ok").Inc()
		s.vectors.reloaded.SetToCurrentTime()
	}
}
