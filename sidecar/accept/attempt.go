package accept

import (
	"container/list"
	"context"
	"net"

	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

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

	// Guarded by Loop.mu.
	pipe *pipe.Pipe // nil unless it is among the open ones
	over bool       // its pipe has ended
}

// Admit counts the connection for its peer, which a.Record names and which has
// proved who it is. It waits for its turn where the tunnel is full. If it
// returns false, the record says why.
func (a *Attempt) Admit(ctx context.Context) bool {
	err := a.gate.admit(ctx, a, peerOf(a.Record))
	if err == nil {
		return true
	}
	a.Record.End(record.Limited, err)
	if why := context.Cause(ctx); why != nil && why != context.DeadlineExceeded {
		a.Record.End(record.Shutdown, why)
	}
	return false
}

// peerOf is the name that a peer is counted by.
func peerOf(rec *record.Record) string {
	switch {
	case rec.PeerClaimed: // let in for its key: whatever else is in its certificate is its own choice
		return rec.Rule
	case !rec.Peer.IsZero():
		return rec.Peer.String()
	default:
		return rec.PeerSubject
	}
}

func (a *Attempt) evictBy(f context.CancelCauseFunc) {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	a.evict = f
}
