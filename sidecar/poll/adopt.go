package poll

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Adopt takes over a connection of package net, a *net.TCPConn or *net.UnixConn,
// and closes it. It costs two system calls that Accept and Dial do without.
func (p *Poller) Adopt(conn net.Conn) (*Conn, error) {
	fd, err := another(conn)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if _, ok := conn.(*net.UnixConn); ok {
		network = "unix"
	}
	c := p.newConn(fd, network, conn.RemoteAddr())
	conn.Close() // the socket lives on
	return c, nil
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
