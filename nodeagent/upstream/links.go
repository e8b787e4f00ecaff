package upstream

import (
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// links hands out the one link of the identity and the issuer in use, and closes a
// replaced one when its last call is over.
type links struct {
	open func(addr string, svid *x509svid.SVID) (*link, error)
	// connects counts the handshakes with issuers on all links.
	connects atomic.Int64

	mu  sync.Mutex
	now *link
}

// use returns the link to addr as svid, and what to call when done with it.
func (ls *links) use(addr string, svid *x509svid.SVID) (*link, func(), error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.now == nil || ls.now.svid != svid || ls.now.addr != addr {
		next, err := ls.open(addr, svid)
		if err != nil {
			return nil, nil, err
		}
		next.connected = func() { ls.connects.Add(1) }
		ls.retire(ls.now)
		ls.now = next
	}
	l := ls.now
	l.users++
	return l, sync.OnceFunc(func() { ls.done(l) }), nil
}

func (ls *links) done(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.users--
	if l.retired && l.users == 0 {
		l.conn.Close()
	}
}

// drop makes the next call open a new link in place of l.
func (ls *links) drop(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.now == l {
		ls.retire(l)
		ls.now = nil
	}
}

// retire closes l when nobody uses it any more; ls.mu is held.
func (ls *links) retire(l *link) {
	if l == nil {
		return
	}
	l.retired = true
	if l.users == 0 {
		l.conn.Close()
	}
}

func (ls *links) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.retire(ls.now)
	ls.now = nil
}
