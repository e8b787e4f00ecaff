package workloadattest

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often processes without pidfd are looked at.
const pollInterval = time.Second

// watcher closes connections whose processes have ended. One goroutine waits for
// all of them, with an epoll of pidfds; it runs only while there are some.
type watcher struct {
	interval time.Duration // pollInterval but in tests

	mu    sync.Mutex
	conns map[int32]*watchedConn // by pidfd, which is open while it is in here
	// weak has those of processes without pidfd.
	weak map[*watchedConn]struct{}
	loop *epollLoop // nil: it does not run
}

// epollLoop is one run of the goroutine.
type epollLoop struct {
	file  *os.File // the epoll; closing it ends the loop
	fd    int
	ended chan struct{}
}

func newWatcher() *watcher {
	return &watcher{interval: pollInterval, conns: make(map[int32]*watchedConn), weak: make(map[*watchedConn]struct{})}
}

// add watches c until remove. The process may have ended before.
func (w *watcher) add(c *watchedConn) error {
	w.mu.Lock()
	var err error
	if w.loop == nil {
		err = w.start()
	}
	if err == nil {
		err = w.register(c)
	}
	idle := w.takeIdle()
	w.mu.Unlock()
	idle.stop()
	return err
}

func (w *watcher) register(c *watchedConn) error {
	if c.pin.pidfd == nil {
		w.weak[c] = struct{}{}
		if len(w.weak) > 1 {
			return nil // they are looked at every second already
		}
		return w.loop.file.SetReadDeadline(time.Now().Add(w.interval))
	}
	raw, err := c.pin.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var addErr error
	err = raw.Control(func(fd uintptr) {
		c.fd = int32(fd)
		addErr = unix.EpollCtl(w.loop.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: c.fd})
	})
	if err := errors.Join(err, addErr); err != nil {
		return err
	}
	w.conns[c.fd] = c
	return nil
}

// remove undoes add. It is called before the pidfd is closed, once.
func (w *watcher) remove(c *watchedConn) {
	w.mu.Lock()
	delete(w.weak, c)
	if c.pin.pidfd != nil && w.conns[c.fd] == c {
		delete(w.conns, c.fd)
		// It is not there any more if the process ended.
		_ = unix.EpollCtl(w.loop.fd, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	idle := w.takeIdle()
	w.mu.Unlock()
	idle.stop()
}

func (w *watcher) start() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	// Non-blocking: then the runtime's poller takes it, and no thread waits.
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	w.loop = &epollLoop{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, ended: make(chan struct{})}
	go w.run(w.loop)
	return nil
}

// takeIdle takes the loop away where nothing is left to watch; else it is nil.
func (w *watcher) takeIdle() *epollLoop {
	if w.loop == nil || len(w.conns) > 0 || len(w.weak) > 0 {
		return nil
	}
	loop := w.loop
	w.loop = nil
	return loop
}

// stop ends the goroutine and waits for it. w.mu is not held: it may need it.
func (l *epollLoop) stop() {
	if l != nil {
		l.file.Close()
		<-l.ended
	}
}

func (w *watcher) run(loop *epollLoop) {
	defer close(loop.ended)
	raw, err := loop.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.sweep(loop)
		case err != nil:
			return
		default:
			for _, e := range events[:n] {
				w.end(loop, e.Fd)
			}
		}
	}
}

// end closes the connection of a pidfd that says its process has ended. It looks
// again: the number may be another pidfd's by now.
func (w *watcher) end(loop *epollLoop, fd int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conns[fd]
	if w.loop != loop || c == nil || c.pin.check() == nil {
		return
	}
	// No more events of it; it leaves the map when it is closed as a whole.
	_ = unix.EpollCtl(loop.fd, unix.EPOLL_CTL_DEL, int(fd), nil)
	c.hangUp()
}

// sweep looks at the processes without pidfd.
func (w *watcher) sweep(loop *epollLoop) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loop != loop {
		return
	}
	for c := range w.weak {
		if c.pin.check() != nil {
			delete(w.weak, c)
			c.hangUp()
		}
	}
	var next time.Time // none left: wait for events alone
	if len(w.weak) > 0 {
		next = time.Now().Add(w.interval)
	}
	_ = loop.file.SetReadDeadline(next)
}

// watchedConn is closed when its process ends.
type watchedConn struct {
	net.Conn
	*reader
	pin     *pin
	fd      int32 // of the pidfd, in the watcher
	watcher *watcher
	closed  func() // told once
	once    sync.Once
}

// hangUp closes the socket alone. gRPC sees that, ends the streams and closes
// the whole.
func (c *watchedConn) hangUp() { c.Conn.Close() }

// Close closes the socket and lets go of the process.
func (c *watchedConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.watcher.remove(c)
		if err = c.Conn.Close(); errors.Is(err, net.ErrClosed) {
			err = nil // the watcher was first
		}
		c.pin.close()
		c.closed()
	})
	return err
}
