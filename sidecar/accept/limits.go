package accept

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Limits bound what a tunnel's clients can make it hold; 0 is no limit.
type Limits struct {
	// Connections are those established. Beyond it nothing is accepted: clients
	// wait in the kernel's queue. Those that were accepted before it was reached
	// get their turn in the order in which they showed who they are, and are
	// refused where that takes longer than the connect timeout.
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

// gate counts a tunnel's connections and holds them to its limits.
type gate struct {
	mu         sync.Mutex
	limits     Limits         // guarded by mu
	handshakes list.List      // of *Attempt, oldest first; guarded by mu
	turns      list.List      // of *turn: who waits to be admitted, first come first; guarded by mu
	admitted   int            // guarded by mu
	settled    int            // established; guarded by mu
	peers      map[string]int // guarded by mu
	changed    chan struct{}  // closed when there may be room for one more; nil if nobody waits for that; guarded by mu
}

func (g *gate) setLimits(limits Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = limits
	g.changes()
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

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.turns.Len()
}

// wait waits until there is room for one more connection, or ctx ends.
func (g *gate) wait(ctx context.Context) {
	for {
		changed, evict := g.full(time.Now())
		if changed == nil {
			return
		}
		var timer <-chan time.Time
		if evict > 0 {
			timer = time.After(evict)
		}
		select {
		case <-changed:
		case <-timer:
		case <-ctx.Done():
			return
		}
	}
}

// full returns nil if there is room. Else it returns what tells of room, gives
// the oldest handshake up if that would make some, and tells when to look again.
func (g *gate) full(now time.Time) (changed <-chan struct{}, evict time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.Connections > 0 && g.admitted+g.turns.Len() >= g.limits.Connections {
		return g.change(), 0
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
			return g.change(), evictAge - age
		}
		a.evict(ErrFlooded)
		a.evict = nil
		break
	}
	return g.change(), evictAge
}

// change returns what the next change closes; mu is held.
func (g *gate) change() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

// changes admits those whose turn it is now, and tells who waits for room; mu is
// held.
func (g *gate) changes() {
	g.takeTurns()
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

func (g *gate) begin(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.place = g.handshakes.PushBack(a)
}

// established takes a from among the handshakes.
func (g *gate) established(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled++
	g.leave(a)
}

// end forgets a, whatever it had come to.
func (g *gate) end(a *Attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.admitted {
		g.admitted--
		g.forget(a.peer)
	}
	if a.place != nil {
		g.leave(a)
		return
	}
	g.settled--
	g.changes()
}

// leave takes a from among the handshakes; mu is held.
func (g *gate) leave(a *Attempt) {
	g.handshakes.Remove(a.place)
	a.place, a.evict = nil, nil
	g.changes()
}

func (g *gate) forget(peer string) {
	if peer == "" {
		return
	}
	if g.peers[peer]--; g.peers[peer] == 0 {
		delete(g.peers, peer)
	}
}
