// Package accept owns a tunnel's connections from their acceptance to their
// record: it starts a handler for each, keeps to the tunnel's limits, and ends
// them when the sidecar does. It does not know how a handler brings its ends up.
package accept

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Handler brings up the two ends of connections.
type Handler interface {
	// Connect brings up both ends of an attempt, and calls Admit as soon as the
	// peer has shown who it is. ctx ends when the time for that is over. If it
	// cannot, it closes everything, a.Conn included, a.Record says why, and both
	// ends are nil.
	Connect(ctx context.Context, a *Attempt) (client, target *pipe.End)
}

// Settings are what new connections are handled by.
type Settings struct {
	Handler Handler
	// Tunnel, Direction and Target are for the records.
	Tunnel    string
	Direction record.Direction
	Target    string
	Metrics   *metrics.Tunnel
	Quiet     record.Quiet
	// ConnectTimeout is the time for everything before the first byte.
	ConnectTimeout time.Duration
	// IdleTimeout, CloseTimeout and MaxAge end an established connection: without
	// a byte for so long, without one for so long after one end was done sending,
	// and in any case. 0 is never. CloseAtOnce makes one end's end that of both.
	IdleTimeout, CloseTimeout, MaxAge time.Duration
	CloseAtOnce                       bool
	Limits                            Limits
	// ShutdownTimeout is how long connections may go on after Run's ctx ended, and
	// DrainIdle how long one may then be silent; 0 leaves silent ones alone.
	ShutdownTimeout, DrainIdle time.Duration
}

// Loop serves one listener. Its fields, and its settings by Set, are there
// before Run.
type Loop struct {
	Listener net.Listener
	Log      *slog.Logger

	settings atomic.Pointer[Settings]
	gate     gate
	draining atomic.Bool

	mu     sync.Mutex
	open   map[*connection]struct{} // established; guarded by mu
	forced error                    // why all were cut off; guarded by mu
	all    sync.WaitGroup           // of connections, from acceptance to record
}

// Set makes s apply to every connection accepted from now on, and its limits at
// once.
func (l *Loop) Set(s *Settings) {
	l.settings.Store(s)
	l.gate.setLimits(s.Limits)
}

// Open is how many connections there are now, and Handshakes how many of them
// are not established yet.
func (l *Loop) Open() int64 { return int64(l.gate.open()) }

// Handshakes is how many connections are being set up now.
func (l *Loop) Handshakes() int64 { return int64(l.gate.inFlight()) }

// Draining says that no more connections are accepted.
func (l *Loop) Draining() bool { return l.draining.Load() }

// Run accepts until ctx ends, then closes the listener and waits for the open
// connections. Those left after ShutdownTimeout are closed, and Run returns an
// error that tells how many. It also returns if the listener fails for good.
func (l *Loop) Run(ctx context.Context) error {
	// Connections outlive ctx; force ends those that are being set up.
	connCtx, force := context.WithCancelCause(context.WithoutCancel(ctx))
	defer force(nil)
	stop := context.AfterFunc(ctx, func() { l.Listener.Close() })
	defer stop()
	acceptErr := l.accept(ctx, connCtx)
	if ctx.Err() != nil {
		acceptErr = nil // the listener was closed by us
	}
	l.draining.Store(true)
	l.Listener.Close()
	return errors.Join(acceptErr, l.drain(force))
}

func (l *Loop) accept(ctx, connCtx context.Context) error {
	var wait time.Duration
	for {
		if err := l.gate.wait(ctx); err != nil {
			return err
		}
		conn, err := l.Listener.Accept()
		if err == nil {
			wait = 0
			a := l.attempt(conn)
			a.settings.Metrics.Accepted()
			l.all.Go(func() { l.handle(connCtx, a) })
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return err
		}
		// Most likely the process is out of file descriptors: some will be closed.
		l.settings.Load().Metrics.AcceptError()
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		l.Log.Warn("cannot accept a connection, trying again", "tunnel", l.settings.Load().Tunnel, "error", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// attempt notes a connection as one that is being set up.
func (l *Loop) attempt(conn net.Conn) *Attempt {
	a := &Attempt{Conn: conn, gate: &l.gate, settings: l.settings.Load()}
	a.Record = &record.Record{Tunnel: a.settings.Tunnel, Direction: a.settings.Direction, Client: clientName(conn),
		Target: a.settings.Target, Start: time.Now()}
	l.gate.begin(a)
	return a
}

// handle sets a connection up and lets it go on without a goroutine.
func (l *Loop) handle(ctx context.Context, a *Attempt) {
	ctx, cancel := context.WithTimeout(ctx, a.settings.ConnectTimeout)
	defer cancel()
	ctx, evict := context.WithCancelCause(ctx)
	defer evict(nil)
	a.evictBy(evict)
	client, target := a.settings.Handler.Connect(ctx, a)
	if client == nil {
		l.gate.end(a)
		l.log(ctx, a)
		return
	}
	a.Record.Connected()
	l.gate.established(a)
	a.settings.Metrics.Established(a.Record)
	l.start(context.WithoutCancel(ctx), a, client, target)
}

// connection is one that is established.
type connection struct {
	pipe *pipe.Pipe
	idle bool // ended because it was silent while draining; guarded by Loop.mu
}

func (l *Loop) start(ctx context.Context, a *Attempt, client, target *pipe.End) {
	s := a.settings
	opt := pipe.Options{IdleTimeout: s.IdleTimeout, CloseTimeout: s.CloseTimeout,
		Counters: s.Metrics.Counters(peerTrustDomain(a.Record))}
	if s.CloseAtOnce {
		opt.CloseTimeout = time.Nanosecond
	}
	if s.MaxAge > 0 {
		opt.Deadline = time.Now().Add(s.MaxAge)
	}
	l.all.Add(1)
	c := &connection{}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*connection]struct{}{}
	}
	l.open[c] = struct{}{}
	// done waits for mu, so it can't be over before c.pipe is set.
	c.pipe = pipe.Start(client, target, opt, func(res pipe.Result) {
		defer l.all.Done()
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
		l.gate.end(a)
		a.Record.Piped(res)
		l.log(ctx, a)
	})
	if l.forced != nil {
		c.pipe.Abort(l.forced)
	}
}

func (l *Loop) log(ctx context.Context, a *Attempt) {
	a.Record.Drained = l.draining.Load()
	a.settings.Metrics.Ended(a.Record)
	if !a.settings.Quiet.Mutes(a.Record) {
		a.Record.Log(ctx, l.Log)
	}
}

func peerTrustDomain(rec *record.Record) string {
	if rec.Peer.IsZero() {
		return ""
	}
	return rec.Peer.TrustDomain().Name()
}

// clientName is who connected: UNIX clients rarely have an address.
func clientName(conn net.Conn) string {
	if s := conn.RemoteAddr().String(); s != "" && s != "@" {
		return s
	}
	return conn.RemoteAddr().Network()
}
