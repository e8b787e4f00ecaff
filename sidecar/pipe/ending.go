package pipe

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cause is how a pipe ended, in a word. The worse one wins where its two
// directions ended differently.
type Cause int

const (
	// Closed: both ends said that they were done.
	Closed Cause = iota
	// Reset: one end was reset, or went away while it was written to.
	Reset
	// TimedOut: an end stopped answering the kernel's probes.
	TimedOut
	// Failed: any other error.
	Failed
	// Truncated: a TLS peer went away without close_notify.
	Truncated
	// Alert: a TLS peer sent an alert other than close_notify, such as a refusal
	// of our certificate (in TLS 1.3 that comes after our handshake is done).
	Alert
	// CloseTimeout: after one direction had ended, no byte came for too long.
	CloseTimeout
	// IdleTimeout: no byte came either way for too long.
	IdleTimeout
	// MaxAge: it reached the greatest age it was allowed.
	MaxAge
	// Aborted: our side ended it, see Result.Err.
	Aborted
)

// Result tells what a pipe did.
type Result struct {
	Forward  int64 // bytes that went from a to b
	Backward int64 // bytes that went from b to a
	Cause    Cause
	Err      error // nil if Cause is Closed
}

// because notes a cause.
func (p *Pipe) because(c Cause, err error) {
	if c > p.cause {
		p.cause, p.err = c, err
	}
}

// sourceEnded is for the end of what w's source sends, or an error of it.
func (p *Pipe) sourceEnded(w *way, err error) {
	if err != io.EOF {
		p.broken(w, err)
		return
	}
	w.state = closing
	if err := w.dst.closeWrite(); err != nil {
		p.failed(err)
		p.wayOver(w, ended)
		return
	}
	p.settle(w)
}

// writeFailed is for an error of w's destination. What that sent before it went away
// is still to be delivered: the other direction ends by reading it to its end.
func (p *Pipe) writeFailed(w *way, err error) {
	if w.unsent == 0 && w.state != closing {
		return // only answers to key updates are lost: whoever writes next is told
	}
	w.unsent = 0
	w.dst.readable = true
	p.failed(err)
	if w.state == closing {
		p.wayOver(w, ended)
	} else {
		p.wayOver(w, refused)
	}
}

// wayOver is for a direction in which nothing is left to move.
func (p *Pipe) wayOver(w *way, how wayState) {
	w.state = how
	if p.over++; p.over == 2 {
		p.bothOver()
		return
	}
	p.quiet = p.loop.Nanos()
	p.limit()
	p.watch(w)
}

// watch ends the pipe if an end that is done sending has vanished before the other
// one was done, which nobody would notice until there is something to send to it.
func (p *Pipe) watch(w *way) {
	if w.state == ended && w.src.gone {
		p.broken(w, w.src.sock.whyGone())
	}
}

// broken ends both directions: w's source cannot be read from any more.
func (p *Pipe) broken(w *way, err error) {
	p.failed(err)
	p.end(func() {
		w.src.sock.closeAfterAlert()
		w.dst.sock.resetAfterFlush()
	})
}

// bothOver ends a pipe of which both directions are over.
func (p *Pipe) bothOver() {
	if p.cause == Closed {
		p.close()
		return
	}
	a, b := p.ways[0].src.sock, p.ways[1].src.sock
	p.end(func() { // there may be unread input, which makes closing a reset
		a.awaitDelivery()
		b.awaitDelivery()
	})
}

// resetBoth ends a pipe whose ends are not done: neither must take what it got for all
// there was.
func (p *Pipe) resetBoth() {
	a, b := p.ways[0].src.sock, p.ways[1].src.sock
	p.end(func() {
		a.resetAfterFlush()
		b.resetAfterFlush()
	})
}

// abort ends the pipe with resets, also one that a goroutine is about to end.
func (p *Pipe) abort() {
	if p.state == closed {
		return
	}
	for _, w := range p.ways {
		w.src.sock.Reset()
	}
	if p.state == moving {
		p.close()
	}
}

// end ends the pipe by a goroutine that may wait. Nothing else uses the sockets
// meanwhile, but for abort.
func (p *Pipe) end(wait func()) {
	p.state = ending
	p.detach()
	p.spawn(func() {
		wait()
		p.mu.Lock()
		p.close()
		p.mu.Unlock()
	})
}

// detach takes the sockets back from the loop.
func (p *Pipe) detach() {
	for _, w := range p.ways {
		w.src.sock.Detach()
	}
	if p.loop != nil {
		p.loop.Unset(&p.timer)
	}
}

// close closes the sockets and says so.
func (p *Pipe) close() {
	if p.state == moving {
		p.detach()
	}
	p.state = closed
	for i := range p.ways {
		p.ways[i].countPart()
	}
	for _, w := range p.ways {
		w.src.sock.Close()
		w.src.sock.dropIn()
		w.src.sock.dropOut()
	}
	res := Result{Forward: p.ways[0].total, Backward: p.ways[1].total, Cause: p.cause, Err: p.err}
	p.spawn(func() { p.done(res) })
}

func (p *Pipe) spawn(f func()) {
	if p.loop == nil {
		go f()
		return
	}
	p.loop.Go(f)
}

// whyGone is the error of a socket that is gone.
func (s *Socket) whyGone() error {
	var gone error = syscall.ECONNRESET // of a UNIX socket, and if a write was told already
	// A socket that is closed here was reset here.
	_ = s.Control(func(fd uintptr) {
		if errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			gone = syscall.Errno(errno)
		}
	})
	return gone
}

func (p *Pipe) failed(err error) {
	var op *net.OpError
	var netErr net.Error
	switch {
	case errors.Is(err, ErrTruncated):
		p.because(Truncated, err)
	case errors.As(err, &op) && op.Op == "remote error":
		p.because(Alert, err)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		p.because(Reset, err)
	case errors.As(err, &netErr) && netErr.Timeout():
		p.because(TimedOut, err)
	default:
		p.because(Failed, err)
	}
}
