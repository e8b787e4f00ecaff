package poll

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions are for the connections that a Listener accepts; the zero value
// leaves all to what the listening socket has.
type ListenOptions struct {
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration // TCP_USER_TIMEOUT; 0 leaves it to the kernel
}

// Listener is a listening socket that accepts its connections as *Conn.
type Listener struct {
	sock
	network string
	addr    net.Addr
	path    string // what to remove in the end, or ""

	closing sync.Once
}

// Listener takes l over, a *net.TCPListener or *net.UnixListener, and closes it
// also if there is an error. The file of a UNIX socket is removed when the Listener
// is closed, if this process made it.
func (p *Poller) Listener(l net.Listener) (*Listener, error) {
	fd, err := another(l)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Addr(), errors.Join(err, l.Close()))
	}
	out := &Listener{network: "tcp", addr: l.Addr()}
	if u, ok := l.(*net.UnixListener); ok {
		out.network = "unix"
		u.SetUnlinkOnClose(false)
		if name := l.Addr().String(); name != "" && name[0] != '@' && madeHere(fd) {
			out.path = name
		}
	} else {
		// What a TCP connection gets from its listener needs no call of its own.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	p.adopt(fd, &out.sock)
	// Or connections would wake the runtime's event loop as well.
	if err := errors.Join(os.NewSyscallError("setsockopt", err), l.Close()); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// another returns another descriptor of a socket of package net.
func another(owner any) (int, error) {
	sc, ok := owner.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("type %T has no file descriptor", owner)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, dupErr := 0, error(nil)
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	return fd, os.NewSyscallError("fcntl", dupErr)
}

// madeHere tells a socket of this process from one that was handed to it: the
// kernel keeps who called listen.
func madeHere(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(cred.Pid) == os.Getpid()
}

// SetOptions says what connections get that come from now on.
func (l *Listener) SetOptions(opt ListenOptions) error {
	if l.network != "tcp" {
		return nil
	}
	var err error
	return errors.Join(l.Control(func(fd uintptr) { err = setTCP(int(fd), opt.KeepAlive, opt.UserTimeout) }), err)
}

// Accept implements net.Listener; what it returns is a *Conn. An error other than
// net.ErrClosed is for the moment, as too many open files are.
func (l *Listener) Accept() (net.Conn, error) {
	var fd int
	var from syscall.Sockaddr
	err := l.until(nil, reading, func(listening int) error {
		var err error
		for {
			fd, from, err = syscall.Accept4(listening, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err != unix.ECONNABORTED { // it was gone before it was accepted
				return err
			}
		}
	})
	if err != nil {
		if _, ok := errors.AsType[syscall.Errno](err); ok {
			err = os.NewSyscallError("accept4", err)
		}
		return nil, &net.OpError{Op: "accept", Net: l.network, Addr: l.addr, Err: err}
	}
	return l.poller.newConn(fd, l.network, addrOf(from)), nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close implements net.Listener. Connections that nobody accepted are reset.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		if l.path != "" {
			// It may be gone already.
			_ = os.Remove(l.path)
		}
	})
	return l.sock.Close()
}
