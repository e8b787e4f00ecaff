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
	// DrainIdle how long one may then be idle (see endIdle); 0 leaves idle ones alone.
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
	open   map[*Attempt]struct{} // established; guarded by mu
	forced error                 // why all were cut off; guarded by mu
	all    sync.WaitGroup        // of connections, from acceptance to record
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

// Waiting is how many of those have shown who they are and wait for the tunnel
// to have room.
func (l *Loop) Waiting() int64 { return int64(l.gate.waiting()) }

// Draining says that no more connections are accepted.
func (l *Loop) Draining() bool { return l.draining.Load() }

// Run accepts until ctx ends, then closes the listener and waits for the open
// connections. Those left after ShutdownTimeout are closed, and Run returns an
// error that tells how many. It also returns if the listener fails for good.
func (l *Loop) Run(ctx context.Context) error {
	// Connections outlive ctx; force ends those that are being set up.
	life := context.WithoutCancel(ctx)
	connCtx, force := context.WithCancelCause(life)
	defer force(nil)
	stop := context.AfterFunc(ctx, func() { l.Listener.Close() })
	defer stop()
	acceptErr := l.accept(ctx, func(a *Attempt) { l.handle(life, connCtx, a) })
	if ctx.Err() != nil {
		acceptErr = nil // the listener was closed by us
	} else {
		l.Log.Error("no more connections are accepted", "tunnel", l.settings.Load().Tunnel, "error", acceptErr)
	}
	l.draining.Store(true)
	l.Listener.Close()
	return errors.Join(acceptErr, l.drain(force))
}

// accept has each connection handled on a goroutine of its own.
func (l *Loop) accept(ctx context.Context, handle func(*Attempt)) error {
	var trouble trouble
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			trouble.over()
			// It waits here as the others do in the kernel's queue, where nothing tells
			// that there is one. If ctx ends meanwhile, it is one of those to be drained.
			l.gate.wait(ctx)
			a := l.attempt(conn)
			a.settings.Metrics.Accepted()
			l.all.Go(func() { handle(a) })
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return err
		}
		// Most likely the process is out of file descriptors: some will be closed.
		l.settings.Load().Metrics.AcceptError()
		wait, tell := trouble.again(time.Now())
		if tell > 0 {
			l.Log.Warn("cannot accept connections, trying again", "tunnel", l.settings.Load().Tunnel, "error", err, "times", tell)
		}
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

// handle sets a connection up, while ctx lasts, and lets it go on without a
// goroutine. What an established connection holds on to is paid for as long as
// it is idle: that is why life, which all share, is a context of its own.
func (l *Loop) handle(life, ctx context.Context, a *Attempt) {
	client, target := l.connect(ctx, a)
	if client == nil {
		l.gate.end(a)
		l.log(life, a)
		return
	}
	a.Record.Connected()
	l.gate.established(a)
	a.settings.Metrics.Established(a.Record)
	l.start(life, a, client, target)
}

func (l *Loop) connect(ctx context.Context, a *Attempt) (client, target *pipe.End) {
	ctx, cancel := context.WithTimeout(ctx, a.settings.ConnectTimeout)
	defer cancel()
	ctx, evict := context.WithCancelCause(ctx)
	defer evict(nil)
	a.evictBy(evict)
	client, target = a.settings.Handler.Connect(ctx, a)
	if client == nil && context.Cause(ctx) == ErrFlooded {
		a.Record.End(record.Limited, ErrFlooded) // whatever it was at when it was told
	}
	return client, target
}

func (l *Loop) log(ctx context.Context, a *Attempt) {
	a.Record.Drained = l.draining.Load()
	a.settings.Metrics.Ended(a.Record)
	if !a.settings.Quiet.Mutes(a.Record) {
		a.Record.Log(ctx, l.Log)
	}
}

// clientName is who connected: UNIX clients rarely have an address.
func clientName(conn net.Conn) string {
	if s := conn.RemoteAddr().String(); s != "" && s != "@" {
		return s
	}
	return conn.RemoteAddr().Network()
}

// trouble is a row of failures to accept.
type trouble struct {
	wait   time.Duration // before the next try
	told   time.Time
	untold int
}

// tellEvery is how often failures are logged at most: where connections come and
// go at the limit of open files, each can be followed by a failure.
const tellEvery = 5 * time.Second

// again notes a failure. It returns how long to wait, and how many failures are
// to be told; 0 is for later.
func (t *trouble) again(now time.Time) (wait time.Duration, tell int) {
	t.wait = min(max(2*t.wait, 5*time.Millisecond), time.Second)
	t.untold++
	if now.Sub(t.told) >= tellEvery {
		tell, t.told, t.untold = t.untold, now, 0
	}
	return t.wait, tell
}

// over says that a connection was accepted.
func (t *trouble) over() { t.wait = 0 }
