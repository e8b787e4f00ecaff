package pipe

import (
	"context"
	"sync/atomic"
	"time"
)

// Counters are live counts of bytes. Many pipes may share them.
type Counters struct {
	Forward  atomic.Int64 // bytes that went from a to b
	Backward atomic.Int64 // bytes that went from b to a
}

// Options are the limits of a pipe; the zero value has none.
type Options struct {
	// IdleTimeout ends a pipe through which no byte went for so long.
	IdleTimeout time.Duration
	// CloseTimeout ends a pipe of which one direction has ended, and through the
	// other one of which no byte went for so long.
	CloseTimeout time.Duration
	// Deadline is when the pipe ends, whatever it does.
	Deadline time.Time
	// Counters are added to while bytes move; may be nil.
	Counters *Counters
}

// Pipe is one that was started.
type Pipe struct {
	cancel context.CancelCauseFunc
	active atomic.Int64
}

// Start moves bytes between a and b, as Join does, and returns at once. When both
// directions have ended and both sockets are closed, done is called once, on a
// goroutine of its own.
func Start(a, b *End, opt Options, done func(Result)) *Pipe {
	ctx, cancel := context.WithCancelCause(context.TODO())
	p := &Pipe{cancel: cancel}
	p.active.Store(time.Now().UnixNano())
	go func() {
		res := Join(ctx, a, b)
		if opt.Counters != nil {
			opt.Counters.Forward.Add(res.Forward)
			opt.Counters.Backward.Add(res.Backward)
		}
		cancel(nil)
		done(res)
	}()
	return p
}

// Abort ends the pipe at once, with a reset both ways: its Cause is Aborted, its Err
// cause. It may be called from any goroutine, and after the end.
func (p *Pipe) Abort(cause error) { p.cancel(cause) }

// Active is when a byte last moved, at most a second off.
func (p *Pipe) Active() time.Time { return time.Unix(0, p.active.Load()) }
