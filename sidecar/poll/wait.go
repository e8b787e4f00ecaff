package poll

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// waiting is what goroutines need that wait for a socket.
type waiting struct{ read, write side }

// side is one direction of it.
type side struct {
	changed  chan struct{} // of capacity one: something may have changed
	deadline atomic.Pointer[deadline]
}

func newWaiting() *waiting {
	w := new(waiting)
	w.read.changed = make(chan struct{}, 1)
	w.write.changed = make(chan struct{}, 1)
	return w
}

// notify wakes who waits, or who is next to.
func (s *side) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// close is for the end of the socket.
func (s *side) close() {
	if d := s.deadline.Load(); d != nil && d.timer != nil {
		d.timer.Stop()
	}
	s.notify()
}

// deadline is a time after which nobody waits any more.
type deadline struct {
	passed atomic.Bool
	timer  *time.Timer // nil if it had passed when it was set
}

// set replaces the deadline; none if t is zero.
func (s *side) set(t time.Time) {
	if old := s.deadline.Swap(nil); old != nil && old.timer != nil {
		old.timer.Stop()
	}
	if t.IsZero() {
		return
	}
	d := new(deadline)
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			d.passed.Store(true)
			s.notify()
		})
	} else {
		d.passed.Store(true)
	}
	s.deadline.Store(d)
	if d.passed.Load() { // also if the timer was faster than this goroutine
		s.notify()
	}
}

func (s *side) expired() bool {
	d := s.deadline.Load()
	return d != nil && d.passed.Load()
}

// errDone says that the channel given to until was closed.
var errDone = errors.New("given up")

// await waits until something may have changed, or done is closed.
func (s *side) await(done <-chan struct{}) error {
	if done == nil {
		<-s.changed
		return nil
	}
	select {
	case <-s.changed:
		return nil
	case <-done:
		return errDone
	}
}

// direction chooses a side.
type direction bool

const (
	reading direction = false
	writing direction = true
)

func (w *waiting) side(d direction) *side {
	if d == writing {
		return &w.write
	}
	return &w.read
}

// until calls op until it does not say EAGAIN, and waits in between: for the loop,
// the deadline, the end of the socket, or that done, which may be nil, is closed.
func (s *sock) until(done <-chan struct{}, d direction, op func(fd int) error) error {
	turn := s.turn(d) // two that wait for one event would have to share it
	turn.Lock()
	defer turn.Unlock()
	for {
		w := s.waiting.Load()
		err := s.once(w, d, op)
		if err == unix.EINTR {
			continue
		}
		if err != unix.EAGAIN {
			return err
		}
		armed, again, err := s.arm(w == nil, d)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if err := armed.side(d).await(done); err != nil {
			return err
		}
	}
}

// once calls op if that is not in vain.
func (s *sock) once(w *waiting, d direction, op func(fd int) error) error {
	if w != nil && w.side(d).expired() {
		return os.ErrDeadlineExceeded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	if d == reading {
		s.seen.And(^uint32(unix.EPOLLIN))
	}
	return op(s.fd)
}

// arm sees to it that a change will be told. If nobody listened until now, it may
// have been told already, and op has to be called again.
func (s *sock) arm(deaf bool, d direction) (w *waiting, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, false, net.ErrClosed
	}
	w = s.listen()
	if s.loop != nil && (s.out || d == reading) {
		return w, deaf, nil
	}
	// What is the case already is an event, as the socket is new to the loop.
	l := s.prefer
	if l == nil {
		l = s.poller.pick()
	}
	return w, false, s.in(l, d == writing)
}

// listen makes what is needed to be told. mu is held.
func (s *sock) listen() *waiting {
	w := s.waiting.Load()
	if w == nil {
		w = newWaiting()
		s.waiting.Store(w)
	}
	return w
}

func (s *sock) turn(d direction) *sync.Mutex {
	if d == writing {
		return &s.writeTurn
	}
	return &s.readTurn
}

// setDeadline sets that of one side.
func (s *sock) setDeadline(d direction, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	if t.IsZero() && s.waiting.Load() == nil {
		return nil
	}
	s.listen().side(d).set(t)
	return nil
}
