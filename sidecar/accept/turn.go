package accept

import (
	"container/list"
	"context"
	"fmt"
)

// turn is an attempt's place among those that wait to be admitted.
type turn struct {
	attempt *Attempt
	peer    string
	at      *list.Element
	come    chan error // of capacity one: nil if it was admitted, or why not
}

// admit counts a for peer, in turn. The error says why not.
func (g *gate) admit(ctx context.Context, a *Attempt, peer string) error {
	t, err := g.queue(a, peer)
	if t == nil {
		return err
	}
	select {
	case err := <-t.come:
		return err
	case <-ctx.Done():
		return g.giveUp(t)
	}
}

// queue admits a at once if there is room, and nobody waits for it. Else it
// returns the turn to wait for, or an error.
func (g *gate) queue(a *Attempt, peer string) (*turn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(peer); err != nil {
		return nil, err
	}
	if g.turns.Len() == 0 && g.hasRoom() {
		g.count(a, peer)
		return nil, nil
	}
	t := &turn{attempt: a, peer: peer, come: make(chan error, 1)}
	t.at = g.turns.PushBack(t)
	return t, nil
}

// giveUp ends the wait for a turn, unless it has come just now.
func (g *gate) giveUp(t *turn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-t.come:
		return err
	default:
	}
	g.turns.Remove(t.at)
	g.changes()
	return fmt.Errorf("the tunnel is full: %d connections (limits.connections)", g.limits.Connections)
}

// takeTurns admits those that wait, as far as there is room; mu is held.
func (g *gate) takeTurns() {
	for g.turns.Len() > 0 && g.hasRoom() {
		t := g.turns.Remove(g.turns.Front()).(*turn)
		err := g.refuse(t.peer)
		if err == nil {
			g.count(t.attempt, t.peer)
		}
		t.come <- err
	}
}

// refuse says why no connection of peer is taken now; mu is held.
func (g *gate) refuse(peer string) error {
	if g.limits.PerPeer > 0 && peer != "" && g.peers[peer] >= g.limits.PerPeer {
		return fmt.Errorf("%s has %d connections open already (limits.per_peer)", peer, g.peers[peer])
	}
	return nil
}

func (g *gate) hasRoom() bool {
	return g.limits.Connections == 0 || g.admitted < g.limits.Connections
}

// count counts a as admitted; mu is held.
func (g *gate) count(a *Attempt, peer string) {
	a.admitted = true
	g.admitted++
	if peer == "" {
		return
	}
	if g.peers == nil {
		g.peers = map[string]int{}
	}
	g.peers[peer]++
	a.peer = peer
}
