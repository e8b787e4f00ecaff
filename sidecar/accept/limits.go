package accept

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Limits bound what a tunnel's clients can make it hold; 0 is no limit.
type Limits struct {
	// Connections are those established. Beyond it nothing is accepted: clients
	// wait in the kernel's queue.
	Connections int
	// PerPeer are those of one peer identity. Beyond it they are refused.
	PerPeer int
	// Handshakes are the connections not established yet. Beyond it nothing is
	// accepted, but the oldest is given up once it is evictAge old: a flood of
	// handshakes that never end then can't keep out those that would.
	Handshakes int
}

// evictAge is what a handshake gets even under a flood: a few round trips.
const evictAge = time.Second

// ErrFlooded is the cause of a context that ended because newer handshakes needed the place.
var ErrFlooded = errors.New("given up: too many handshakes in flight (limits.handshakes)")

// Attempt is a connection from its acceptance on.
type Attempt struct {
	// Conn is the accepted socket.
	Conn net.Conn
	// Record is what will be told about the connection.
	Record *record.Record

	gate     *gate
	settings *Settings

	// Guarded by gate.mu.
	place    *list.Element // among the handshakes in flight; nil once established or ended
	admitted bool
	peer     string // counted for; empty if for nobody
	evict    context.CancelCauseFunc
}

// Admit counts the connection for its peer, which a.Record names and which has
// proved who it is. It waits for its turn where the tunnel is full. If it
// returns false, the record says why.
func (a *Attempt) Admit(ctx context.Context) bool {
	if err := a.gate.admit(ctx, a, peerOf(a.Record)); err != nil {
		a.Record.End(record.Limited, err)
		return false
	}
	return true
}

func peerOf(rec *record.Record) string {
	if !rec.Peer.IsZero() {
		return rec.Peer.String()
	}
	return rec.PeerSubject
}

func (a *Attempt) evictBy(f context.CancelCauseFunc) {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	a.evict = f
}

// gate counts a tunnel's connections and holds them to its limits.
type gate struct {
	mu         sync.Mutex
	limits     Limits         // guarded by mu
	handshakes list.List      // of *Attempt, oldest first; guarded by mu
	admitted   int            // guarded by mu
	settled    int            // established; guarded by mu
	peers      map[string]int // guarded by mu
	changed    chan struct{}  // closed when there may be room; nil if nobody waits; guarded by mu
}

func (g *gate) setLimits(limits Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = limits
	g.wake()
}

// wake tells those that wait; mu is held.
func (g *gate) wake() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// waiting returns what the next wake closes; mu is held.
func (g *gate) waiting() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

func (g *gate) open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handshakes.Len() + g.settled
}

func (g *gate) inFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handshakes.Len()
}

// wait waits until one more connection may be accepted.
func (g *gate) wait(ctx context.Context) error {
	for {
		changed, evict := g.full(time.Now())
		if changed == nil {
			return nil
		}
		var timer <-chan time.Time
		if evict > 0 {
			timer = time.After(evict)
		}
		select {
		case <-changed:
		case <-timer:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// full returns nil if there is room. Else it returns what tells of room, gives
// the oldest handshake up if that would make some, and tells when to look again.
func (g *gate) full(now time.Time) (changed <-chan struct{}, evict time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.Connections > 0 && g.admitted >= g.limits.Connections {
		return g.waiting(), 0
	}
	if g.limits.Handshakes == 0 || g.handshakes.Len() < g.limits.Handshakes {
		return nil, 0
	}
	for e := g.handshakes.Front(); e != nil; e = e.Next() {
		a := e.Value.(*Attempt)
		if a.evict == nil || a.admitted {
			continue // given up already, or not begun; or past its handshake
		}
		age := now.Sub(a.Record.Start)
		if age < evictAge {
			return g.waiting(), evictAge - age
		}
		a.evict(ErrFlooded)
		a.evict = nil
		break
	}
	return g.waiting(), evictAge
}

func (g *gate) begin(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.place = g.handshakes.PushBack(a)
}

func (g *gate) admit(ctx context.Context, a *Attempt, peer string) error {
	for {
		changed, err := g.tryAdmit(a, peer)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the tunnel is full: %d connections (limits.connections)", a.settings.Limits.Connections)
		}
	}
}

func (g *gate) tryAdmit(a *Attempt, peer string) (<-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.PerPeer > 0 && peer != "" && g.peers[peer] >= g.limits.PerPeer {
		return nil, fmt.Errorf("%s has %d connections open already (limits.per_peer)", peer, g.peers[peer])
	}
	if g.limits.Connections > 0 && g.admitted >= g.limits.Connections {
		return g.waiting(), nil
	}
	a.admitted = true
	g.admitted++
	if peer != "" {
		if g.peers == nil {
			g.peers = map[string]int{}
		}
		g.peers[peer]++
		a.peer = peer
	}
	return nil, nil
}

// established takes a from among the handshakes.
func (g *gate) established(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leave(a)
	g.settled++
}

// end forgets a, whatever it had come to.
func (g *gate) end(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.place != nil {
		g.leave(a)
	} else {
		g.settled--
	}
	if a.admitted {
		g.admitted--
		g.forget(a.peer)
	}
	g.wake()
}

func (g *gate) leave(a *Attempt) {
	g.handshakes.Remove(a.place)
	a.place, a.evict = nil, nil
	g.wake()
}

func (g *gate) forget(peer string) {
	if peer == "" {
		return
	}
	if g.peers[peer]--; g.peers[peer] == 0 {
		delete(g.peers, peer)
	}
}
