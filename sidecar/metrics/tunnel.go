package metrics

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Tunnel counts the connections of one tunnel. A nil Tunnel counts nothing.
type Tunnel struct {
	set          *Set
	key          tunnelKey
	accepted     prometheus.Counter
	acceptErrors prometheus.Counter
	open         prometheus.Gauge
	resumed      prometheus.Counter
	handshake    prometheus.Observer
	connect      prometheus.Observer
	lifetime     prometheus.Observer
	now          atomic.Int64 // what open says
	gone         atomic.Bool  // it is in no configuration any more

	mu    sync.Mutex                       // held to replace peers
	peers atomic.Pointer[map[string]*peer] // by label; a map never changes
}

// peer is what is counted of a tunnel and the peers of one trust domain.
type peer struct {
	domain string // the label
	bytes  pipe.Counters
	ended  atomic.Pointer[map[record.Cause]prometheus.Counter] // a map never changes
}

func newTunnel(s *Set, key tunnelKey) *Tunnel {
	labels := []string{key.name, string(key.direction)}
	return &Tunnel{
		set: s, key: key,
		accepted:     s.vectors.accepted.WithLabelValues(labels...),
		acceptErrors: s.vectors.acceptErrors.WithLabelValues(labels...),
		open:         s.vectors.open.WithLabelValues(labels...),
		resumed:      s.vectors.resumed.WithLabelValues(labels...),
		handshake:    s.vectors.handshake.WithLabelValues(labels...),
		connect:      s.vectors.connect.WithLabelValues(labels...),
		lifetime:     s.vectors.lifetime.WithLabelValues(labels...),
	}
}

// Accepted counts a connection that came in; Ended follows.
func (t *Tunnel) Accepted() {
	if t == nil {
		return
	}
	t.now.Add(1)
	t.accepted.Inc()
	t.open.Inc()
	t.set.totals.accepted.Add(1)
	t.set.totals.open.Add(1)
}

// AcceptError counts a failure to accept.
func (t *Tunnel) AcceptError() {
	if t == nil {
		return
	}
	t.acceptErrors.Inc()
	t.set.totals.errors.Add(1)
}

// Established counts a connection whose both ends are up: rec.Connected was
// called.
func (t *Tunnel) Established(rec *record.Record) {
	if t == nil {
		return
	}
	t.connect.Observe(rec.Connect.Seconds())
	t.set.totals.succeeded.Add(1)
	t.handshakeDone(rec)
}

func (t *Tunnel) handshakeDone(rec *record.Record) {
	if rec.Handshake <= 0 {
		return
	}
	t.handshake.Observe(rec.Handshake.Seconds())
	t.set.totals.handshake.add(rec.Handshake)
	if rec.Resumed {
		t.resumed.Inc()
	}
}

// Ended counts a connection's end, whatever it came to.
func (t *Tunnel) Ended(rec *record.Record) {
	if t == nil {
		return
	}
	lasted := rec.Duration()
	totals := &t.set.totals
	totals.lifetime.add(lasted)
	if rec.Established() {
		t.lifetime.Observe(lasted.Seconds())
	} else {
		totals.errors.Add(1)
		t.handshakeDone(rec)
	}
	switch rec.Cause {
	case record.HandshakeTimeout:
		totals.handshakeTimeouts.Add(1)
	case record.TimedOut, record.IdleTimeout, record.CloseTimeout, record.MaxAge:
		totals.timeouts.Add(1)
	}
	t.peerOf(rec).endedBy(t, rec.Cause).Inc()
	t.open.Dec()
	totals.open.Add(-1)
	if t.now.Add(-1) == 0 && t.gone.Load() {
		t.set.ended(t)
	}
}

// isOver reports whether nothing will be counted any more.
func (t *Tunnel) isOver() bool { return t.gone.Load() && t.now.Load() == 0 }

// Counters returns the live byte counters for the peer that rec names. It is nil if
// nobody gets to see them.
func (t *Tunnel) Counters(rec *record.Record) *pipe.Counters {
	if t == nil {
		return nil
	}
	return &t.peerOf(rec).bytes
}

// peerOf returns what counts for the trust domain of rec's peer.
func (t *Tunnel) peerOf(rec *record.Record) *peer {
	return t.peer(rec.Peer.TrustDomain().Name(), !rec.PeerClaimed)
}

// peer returns what counts for a trust domain, which may only be claimed.
func (t *Tunnel) peer(domain string, verified bool) *peer {
	label := t.set.domains.label(domain, verified)
	if m := t.peers.Load(); m != nil {
		if p, ok := (*m)[label]; ok {
			return p
		}
	}
	return with(&t.mu, &t.peers, label, func() *peer { return &peer{domain: label} })
}

func (p *peer) endedBy(t *Tunnel, c record.Cause) prometheus.Counter {
	if m := p.ended.Load(); m != nil {
		if counter, ok := (*m)[c]; ok {
			return counter
		}
	}
	return with(&t.mu, &p.ended, c, func() prometheus.Counter {
		return t.set.vectors.ended.WithLabelValues(t.key.name, string(t.key.direction), p.domain, c.Reason())
	})
}

// with returns the value of k in the map that at points to, and replaces the map
// by one with that value if there was none. So readers need no lock.
func with[K comparable, V any](mu *sync.Mutex, at *atomic.Pointer[map[K]V], k K, create func() V) V {
	mu.Lock()
	defer mu.Unlock()
	var next map[K]V
	if old := at.Load(); old != nil {
		if v, ok := (*old)[k]; ok {
			return v
		}
		next = maps.Clone(*old)
	} else {
		next = map[K]V{}
	}
	v := create()
	next[k] = v
	at.Store(&next)
	return v
}
