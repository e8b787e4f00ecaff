// Package pipe owns the bytes of a connection once both of its ends are up:
// moving them both ways, passing on each end's half-close, and telling how it
// ended. It does not accept, dial, shake hands or decide who may connect.
package pipe

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
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

// Join moves bytes between a and b until both directions have ended, and closes
// both. Each direction ends by itself: an end that is done sending still
// receives, until it is gone. An error on reading ends both, with a reset towards the end that is
// still there, so that it does not take half for the whole; what was read before
// is delivered first. The end of ctx ends both at once, with its cause.
func Join(ctx context.Context, a, b *End) Result {
	j := &join{}
	a.sock.joined, b.sock.joined = true, true
	stop := context.AfterFunc(ctx, func() {
		j.ended(Aborted, context.Cause(ctx))
		a.sock.Reset()
		b.sock.Reset()
	})
	var res Result
	var wg sync.WaitGroup
	wg.Go(func() { res.Backward = j.copy(a, b) })
	res.Forward = j.copy(b, a)
	wg.Wait()
	socks := []*Socket{a.sock, b.sock}
	if cause, _ := j.result(); cause != Closed {
		for _, s := range socks { // there may be unread input, which makes closing a reset
			s.awaitDelivery()
		}
	}
	stop()
	for _, s := range socks {
		s.Close()
		s.dropIn()
		s.dropOut()
	}
	res.Cause, res.Err = j.result()
	return res
}

// join is what the goroutines of a pipe share.
type join struct {
	mu    sync.Mutex
	cause Cause // guarded by mu
	err   error // guarded by mu
	over  int   // directions in which nothing is left to move; guarded by mu
}

func (j *join) ended(c Cause, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if c > j.cause {
		j.cause, j.err = c, err
	}
}

// directionOver counts a direction that is over, but for a half-close to be passed
// on, and reports whether both are.
func (j *join) directionOver() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over++
	return j.over == 2
}

func (j *join) bothOver() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.over == 2
}

func (j *join) result() (Cause, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cause, j.err
}

// copy moves bytes from src to dst until src is done or either fails.
func (j *join) copy(dst, src *End) (total int64) {
	for {
		buf, err := src.next()
		if err != nil {
			j.sourceEnded(dst, src, err)
			return total
		}
		n, err := dst.write(buf.data)
		src.sock.buffers.give(buf)
		total += int64(n)
		if err != nil {
			// What dst sent before it went away is still to be delivered: the
			// other direction ends by reading it to its end.
			j.failed(err)
			if j.directionOver() {
				dst.sock.stopAwaiting()
			}
			return total
		}
	}
}

func (j *join) sourceEnded(dst, src *End, err error) {
	if err == io.EOF {
		last := j.directionOver()
		if err := dst.closeWrite(); err != nil {
			j.failed(err)
		}
		if last {
			dst.sock.stopAwaiting()
			return
		}
		// src is done sending, and may vanish before dst is.
		if err = src.sock.awaitGone(); err == nil || j.bothOver() {
			return
		}
	}
	j.failed(err)
	src.sock.closeAfterAlert()
	dst.sock.resetAfterFlush()
}

func (j *join) failed(err error) {
	var op *net.OpError
	var netErr net.Error
	switch {
	case errors.Is(err, net.ErrClosed):
		// Closed by the other direction or by ctx, which told why.
	case errors.Is(err, ErrTruncated):
		j.ended(Truncated, err)
	case errors.As(err, &op) && op.Op == "remote error":
		j.ended(Alert, err)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		j.ended(Reset, err)
	case errors.As(err, &netErr) && netErr.Timeout():
		j.ended(TimedOut, err)
	default:
		j.ended(Failed, err)
	}
}
