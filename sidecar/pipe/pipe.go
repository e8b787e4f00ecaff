// Package pipe owns the bytes of a connection once both of its ends are up:
// moving them both ways, passing on each end's half-close, and telling how it
// ended. It does not accept, dial, shake hands or decide who may connect.
package pipe

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// Counters are live counts of bytes. Many pipes may share them.
type Counters struct {
	Forward  atomic.Int64 // bytes that went from a to b
	Backward atomic.Int64 // bytes that went from b to a
}

// Options are the limits of a pipe; the zero value has none. Each is kept to within
// milliseconds.
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

// Pipe is one that was started. It has no goroutine: its sockets' event loop calls
// it when there is something to do.
type Pipe struct {
	opt  Options
	done func(Result)

	mu     sync.Mutex
	loop   *poll.Loop // nil if there was none for it
	ways   [2]way     // guarded by mu, as is what follows
	over   int        // ways in which nothing is left to move
	quiet  int64      // when the first of them was over, by the loop's clock
	state  state
	queued bool // the loop will call Run
	timer  poll.Timer
	cause  Cause
	err    error

	active atomic.Int64 // when a byte last moved, by the loop's clock
}

type state uint8

const (
	moving state = iota
	ending       // a goroutine closes the sockets, see end
	closed
)

// way is one direction.
type way struct {
	src, dst *End
	state    wayState
	unsent   int64         // bytes of src that dst's socket keeps, as the kernel did not take all
	total    int64         // bytes that it took
	count    *atomic.Int64 // the same, for all pipes together; may be nil
}

type wayState uint8

const (
	open    wayState = iota
	closing          // src is done sending, and dst has yet to be told
	ended            // src is done sending, and dst was told
	refused          // dst takes no more
)

// Start moves bytes between a and b, until both directions have ended, and closes
// both. It returns at once. Each direction ends by itself: an end that is done
// sending still receives, until it is gone. An error on reading ends both, with a
// reset towards the end that is still there, so that it does not take half for the
// whole; what was read before is delivered first. Then done is called, once, on a
// goroutine of its own.
func Start(a, b *End, opt Options, done func(Result)) *Pipe {
	p := &Pipe{opt: opt, done: done}
	p.ways = [2]way{{src: a, dst: b}, {src: b, dst: a}}
	if c := opt.Counters; c != nil {
		p.ways[0].count, p.ways[1].count = &c.Forward, &c.Backward
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	loop, err := poll.Watch(a.sock.Conn, b.sock.Conn)
	if err != nil {
		p.because(Failed, err)
		p.abort()
		return p
	}
	p.loop = loop
	p.active.Store(loop.Tick())
	a.attach(p)
	b.attach(p)
	p.limit()
	p.turn()
	return p
}

// attach hands e to the pipe.
func (e *End) attach(p *Pipe) {
	e.sock.piped = true
	e.pipe, e.handler, e.writable, e.held = p, e, true, e.tls != nil
	e.note(e.sock.Attach(&e.handler))
}

// note takes down what happened to the socket.
func (e *End) note(ev poll.Events) {
	e.readable = e.readable || ev&(poll.Readable|poll.Gone) != 0
	e.ended = e.ended || ev&(poll.Ended|poll.Gone) != 0
	e.writable = e.writable || ev&(poll.Writable|poll.Gone) != 0
	e.gone = e.gone || ev&poll.Gone != 0
}

// Ready implements poll.Handler.
func (e *End) Ready(ev poll.Events) {
	p := e.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	e.note(ev)
	p.turn()
}

// Run implements poll.Task: it goes on where turn left off.
func (p *Pipe) Run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued = false
	p.turn()
}

// Abort ends the pipe at once, with a reset both ways: its Cause is Aborted, its Err
// cause. It may be called from any goroutine, and after the end.
func (p *Pipe) Abort(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.because(Aborted, cause)
	p.abort()
}

// EndIdle ends the pipe if it is idle: no byte has moved for limit or is on its
// way, and both ends may still send; one that is done sending waits for its answer.
// Both ends see a reset, as neither said that it was done: the Cause is Aborted, Err
// is cause. It reports whether the pipe was ended.
func (p *Pipe) EndIdle(limit time.Duration, cause error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// By the clock of a loop at rest no time passes.
	if p.state != moving || p.over > 0 || time.Since(p.loop.Time(p.active.Load())) < limit {
		return false
	}
	for _, w := range p.ways {
		if w.state != open || w.unsent > 0 || w.dst.sock.queued() > 0 {
			return false
		}
	}
	p.because(Aborted, cause)
	p.resetBoth()
	return true
}

// Active is when a byte last moved, or the pipe was started.
func (p *Pipe) Active() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loop == nil {
		return time.Time{}
	}
	return p.loop.Time(p.active.Load())
}
