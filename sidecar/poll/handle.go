package poll

import (
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Attach gives c to h, which is told from now on what happens to it. No goroutine
// may wait for c any more. It returns what has happened already.
func (c *Conn) Attach(h *Handler) Events {
	c.handler.Store(h)
	if w := c.waiting.Swap(nil); w != nil {
		w.read.set(time.Time{})
		w.write.set(time.Time{})
	}
	return Events(c.seen.And(uint32(Gone)))
}

// Detach takes c back from its Handler, for goroutines.
func (c *Conn) Detach() { c.handler.Store(nil) }

// Watch puts a and b into one loop and returns it. The error is net.ErrClosed, or
// the kernel's: too many watched sockets, see epoll(7).
func Watch(a, b *Conn) (*Loop, error) {
	l := a.inLoop()
	if l == nil {
		l = b.inLoop()
	}
	if l == nil {
		l = a.poller.pick()
	}
	if err := a.enter(l); err != nil {
		return nil, err
	}
	return l, b.enter(l)
}

func (c *Conn) inLoop() *Loop {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loop
}

// enter puts c into l, out of the loop that it may be in.
func (c *Conn) enter(l *Loop) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fd < 0:
		return net.ErrClosed
	case c.loop == l:
		return nil
	}
	if err := c.leave(); err != nil {
		return err
	}
	return c.in(l, false)
}

// TryRead reads what is there. The error is EAGAIN if nothing is, io.EOF after a FIN,
// net.ErrClosed, or the kernel's.
func (c *Conn) TryRead(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	if c.handler.Load() == nil {
		c.seen.And(^uint32(unix.EPOLLIN))
	}
	for {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// TryWrite writes as much as there is room for. The error is EAGAIN if that is not
// all: Writable follows when there is room again. It is net.ErrClosed or the kernel's
// otherwise.
func (c *Conn) TryWrite(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	for {
		n, err := unix.Write(c.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n < len(b):
			err = unix.EAGAIN // it would be told so next, see epoll(7)
		}
		if n = max(n, 0); err == unix.EAGAIN && c.loop != nil && !c.out {
			if err := c.watch(c.loop, unix.EPOLL_CTL_MOD, true); err != nil {
				return n, err
			}
		}
		return n, err
	}
}
