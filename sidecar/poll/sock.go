package poll

import (
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Events are what happened to a socket.
type Events uint32

// A Handler looks at these.
const (
	Readable Events = unix.EPOLLIN | unix.EPOLLRDHUP
	Writable Events = unix.EPOLLOUT
	// Ended: the other end is done sending. It stays so.
	Ended Events = unix.EPOLLRDHUP
	// Gone: both directions are over, or the connection is broken. It stays so.
	Gone Events = unix.EPOLLHUP | unix.EPOLLERR
)

// Handler is called by a socket's loop for whatever happens to it: once, not for
// as long as it lasts. It must not block.
type Handler interface{ Ready(ev Events) }

// sock is a non-blocking socket, of a Conn or a Listener.
type sock struct {
	poller *Poller

	mu   sync.Mutex // held during system calls, none of which blocks
	fd   int        // -1 once it is closed; guarded by mu
	loop *Loop      // nil until it is in one; guarded by mu
	// prefer is the loop to be put into; nil for any.
	prefer *Loop
	place  int32 // in loop; guarded by mu
	key    int32 // the place's generation; guarded by mu
	out    bool  // it is watched for room to write; guarded by mu

	// Held by the one goroutine that reads or waits to, and writes or waits to.
	readTurn, writeTurn sync.Mutex

	handler atomic.Pointer[Handler] // nil while goroutines use the socket
	waiting atomic.Pointer[waiting] // nil until one had to wait
	seen    atomic.Uint32           // Events without a Handler, and Gone
}

func (p *Poller) adopt(fd int, s *sock) {
	s.poller, s.fd = p, fd
	p.open.Add(1)
}

// fire tells a socket what happened, and reports whether a goroutine was woken.
func (s *sock) fire(ev Events) (woken bool) {
	if ev&Gone != 0 {
		s.seen.Or(uint32(ev & Gone))
	}
	if h := s.handler.Load(); h != nil {
		(*h).Ready(ev)
		return false
	}
	s.seen.Or(uint32(ev))
	if h := s.handler.Load(); h != nil { // it came meanwhile, and may not have seen it
		(*h).Ready(ev)
		return false
	}
	if w := s.waiting.Load(); w != nil {
		if ev&(Readable|Gone) != 0 {
			w.read.notify()
		}
		if ev&(Writable|Gone) != 0 {
			w.write.notify()
		}
		return true
	}
	return false
}

// in puts the socket into loop l, or leaves it in the one that it is in. If it
// can be read from already, that is an event. mu is held.
func (s *sock) in(l *Loop, out bool) error {
	if s.loop != nil {
		if out && !s.out {
			return s.watch(s.loop, unix.EPOLL_CTL_MOD, out)
		}
		return nil
	}
	s.place, s.key = l.reserve(s)
	if err := s.watch(l, unix.EPOLL_CTL_ADD, out); err != nil {
		l.release(s.place)
		return err
	}
	s.loop = l
	return nil
}

func (s *sock) watch(l *Loop, op int, out bool) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: s.place, Pad: s.key}
	if out {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.epfd, op, s.fd, &ev); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.out = out
	return nil
}

// leave takes the socket out of its loop. mu is held.
func (s *sock) leave() error {
	l := s.loop
	if l == nil {
		return nil
	}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, s.fd, nil); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.loop, s.out = nil, false
	l.release(s.place)
	return nil
}

// Close closes the socket. What waits for it is woken and gets net.ErrClosed.
// A second call returns that too.
func (s *sock) Close() error { return s.close(func(int) {}) }

// close calls last before it closes.
func (s *sock) close(last func(fd int)) error {
	s.mu.Lock()
	if s.fd < 0 {
		s.mu.Unlock()
		return net.ErrClosed
	}
	last(s.fd)
	if s.loop != nil {
		s.loop.release(s.place) // before the number is free: it may be in the same loop at once
		s.loop = nil
	}
	// Nobody else has this socket, so the kernel takes it out of the loop as well.
	err := unix.Close(s.fd)
	s.fd = -1
	s.poller.open.Add(-1)
	s.mu.Unlock()
	if w := s.waiting.Load(); w != nil {
		w.read.close()
		w.write.close()
	}
	return os.NewSyscallError("close", err)
}

// Control calls f with the file descriptor, which is open meanwhile.
func (s *sock) Control(f func(fd uintptr)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(s.fd))
	return nil
}
