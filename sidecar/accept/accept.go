// Package accept owns a listener's connections from their acceptance to their
// record: it starts a handler for each, and ends them when the sidecar does. It
// does not know what the handler does with them.
package accept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Handler takes one connection to its end and closes it. It fills in rec, which
// its caller logs. Once ctx is cancelled it has to end at once, with
// context.Cause(ctx).
type Handler interface {
	Handle(ctx context.Context, conn net.Conn, rec *record.Record)
}

// Loop serves one listener.
type Loop struct {
	Listener  net.Listener
	Handler   Handler
	Direction record.Direction
	Target    string // for the records
	// ShutdownTimeout is how long connections may go on after Run's ctx ended.
	ShutdownTimeout time.Duration
	Log             *slog.Logger

	open atomic.Int64
}

// Open is how many connections there are now.
func (l *Loop) Open() int64 { return l.open.Load() }

// Run accepts until ctx ends, then closes the listener and waits for the open
// connections. Those left after ShutdownTimeout are closed, and Run returns an
// error that tells how many. It also returns if the listener fails for good.
func (l *Loop) Run(ctx context.Context) error {
	// Connections outlive ctx; force ends them.
	connCtx, force := context.WithCancelCause(context.WithoutCancel(ctx))
	defer force(nil)
	stop := context.AfterFunc(ctx, func() { l.Listener.Close() })
	defer stop()

	var handlers sync.WaitGroup
	acceptErr := l.accept(ctx, connCtx, &handlers)
	if ctx.Err() != nil {
		acceptErr = nil // the listener was closed by us
	}
	l.Listener.Close()

	done := make(chan struct{})
	go func() {
		handlers.Wait()
		close(done)
	}()
	timer := time.NewTimer(l.ShutdownTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return acceptErr
	case <-timer.C:
	}
	left := l.Open()
	err := fmt.Errorf("--shutdown-timeout %s passed with %d connections still open: closed them", l.ShutdownTimeout, left)
	force(err)
	<-done
	return errors.Join(acceptErr, err)
}

func (l *Loop) accept(ctx, connCtx context.Context, handlers *sync.WaitGroup) error {
	var wait time.Duration
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			wait = 0
			l.open.Add(1)
			handlers.Go(func() { l.handle(ctx, connCtx, conn) })
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return err
		}
		// Most likely the process is out of file descriptors: some will be closed.
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		l.Log.Warn("cannot accept a connection, trying again", "error", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (l *Loop) handle(ctx, connCtx context.Context, conn net.Conn) {
	defer l.open.Add(-1)
	rec := &record.Record{Direction: l.Direction, Client: clientName(conn), Target: l.Target, Start: time.Now()}
	l.Handler.Handle(connCtx, conn, rec)
	rec.Drained = ctx.Err() != nil
	rec.Log(connCtx, l.Log)
}

// clientName is who connected: UNIX clients rarely have an address.
func clientName(conn net.Conn) string {
	if s := conn.RemoteAddr().String(); s != "" && s != "@" {
		return s
	}
	return conn.RemoteAddr().Network()
}
