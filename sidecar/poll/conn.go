package poll

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connected TCP or UNIX socket. It is a net.Conn for goroutines, and
// safe for concurrent use as such. A Handler that was attached to it has the Try
// methods instead, which do not wait.
type Conn struct {
	sock
	network string // "tcp" or "unix"
	remote  net.Addr
	local   net.Addr // nil until it was asked for; guarded by mu
}

func (p *Poller) newConn(fd int, network string, remote net.Addr) *Conn {
	c := &Conn{network: network, remote: remote}
	p.adopt(fd, &c.sock)
	return c
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	err = c.until(nil, reading, func(fd int) error {
		var err error
		n, err = unix.Read(fd, b)
		if n == 0 || n == len(b) {
			c.seen.Or(unix.EPOLLIN) // there is more to read, or may be
		}
		return err
	})
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// WaitRead waits until Read would not have to, so that it needs no buffer
// meanwhile. It may return too early, and so needs a loop.
func (c *Conn) WaitRead() error {
	looked := false
	err := c.until(nil, reading, func(fd int) error {
		if looked {
			return nil
		}
		looked = true
		return unix.EAGAIN
	})
	if err != nil {
		return c.failed("read", err)
	}
	return nil
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (n int, err error) {
	err = c.until(nil, writing, func(fd int) error {
		for n < len(b) {
			m, err := unix.Write(fd, b[n:])
			if err != nil {
				return err
			}
			n += m
		}
		return nil
	})
	if err != nil {
		return n, c.failed("write", err)
	}
	return n, nil
}

func (c *Conn) failed(op string, err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.LocalAddr(), Addr: c.remote, Err: err}
}

// CloseWrite sends a FIN: no more bytes will follow.
func (c *Conn) CloseWrite() error {
	err := net.ErrClosed
	if ctl := c.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); ctl != nil || err == nil {
		return ctl
	}
	return c.failed("shutdown", err)
}

// Reset closes a TCP connection so that the other end sees a reset, and discards
// what it has not been sent. A UNIX socket knows no reset; there it is Close.
func (c *Conn) Reset() error {
	return c.close(func(fd int) {
		if c.network == "tcp" {
			// It fails for no reason that would keep the socket from being closed.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	})
}

// Network is "tcp" or "unix".
func (c *Conn) Network() string { return c.network }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr implements net.Conn. After Close it may be unknown, but is not nil.
func (c *Conn) LocalAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil && c.fd >= 0 {
		if sa, err := syscall.Getsockname(c.fd); err == nil {
			c.local = addrOf(sa)
		}
	}
	if c.local == nil {
		return unknownAddr(c.network)
	}
	return c.local
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlineOf(reading, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlineOf(writing, t) }

func (c *Conn) setDeadlineOf(d direction, t time.Time) error {
	if err := c.setDeadline(d, t); err != nil {
		return c.failed("set", err)
	}
	return nil
}
