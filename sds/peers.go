package sds

import (
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// peerListener accepts connections of some users only, by the credentials that
// the kernel noted when the peer connected (SO_PEERCRED, unix(7)).
type peerListener struct {
	*net.UnixListener
	log     *slog.Logger
	allowed map[int]bool
	// refused is when each user's refusal was last logged: someone who tries in
	// a loop gets one record a minute. Used by Accept alone, which gRPC calls
	// from one goroutine.
	refused map[int]time.Time
}

func newPeerListener(l *net.UnixListener, others []int, log *slog.Logger) *peerListener {
	p := &peerListener{UnixListener: l, log: log, allowed: map[int]bool{os.Geteuid(): true}, refused: make(map[int]time.Time)}
	for _, uid := range others {
		p.allowed[uid] = true
	}
	return p
}

// Accept returns the next connection of an allowed user and closes the others.
func (p *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := p.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := unixsock.PeerUID(conn)
		if err == nil && p.allowed[uid] {
			return conn, nil
		}
		_ = conn.Close() // nothing was said on it
		if err != nil {
			p.log.Warn("refused a connection whose user is unknown", "error", err)
			continue
		}
		p.logRefusal(uid, time.Now())
	}
}

func (p *peerListener) logRefusal(uid int, now time.Time) {
	if now.Sub(p.refused[uid]) < time.Minute {
		return
	}
	maps.DeleteFunc(p.refused, func(_ int, at time.Time) bool { return now.Sub(at) >= time.Minute })
	p.refused[uid] = now
	p.log.Warn("refused a connection of a user that is not allowed to have this identity", "uid", uid, "allowed_uids", p.uids())
}

func (p *peerListener) uids() []int { return slices.Sorted(maps.Keys(p.allowed)) }
