package poll

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialOptions are for one connection.
type DialOptions struct {
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration // TCP_USER_TIMEOUT; 0 leaves it to the kernel
	// Near is the connection that the new one is to be joined with, so that both
	// are in one loop from the beginning; may be nil, or of another type than *Conn.
	Near net.Conn
}

// fallbackDelay is how long an address gets before the next one is tried as well
// (RFC 8305, section 5).
const fallbackDelay = 250 * time.Millisecond

// Dial connects to address, and returns a *Conn. The network is "tcp" or "unix". A
// name is resolved, and its addresses are tried one after the other: the next when
// one fails or has not answered for 250 ms. Errors are as those of net.Dialer.
func (p *Poller) Dial(ctx context.Context, network, address string, opt DialOptions) (net.Conn, error) {
	d := dialer{p, network, opt}
	if network == "unix" {
		return d.dial(ctx, &unix.SockaddrUnix{Name: address}, unix.AF_UNIX, &net.UnixAddr{Name: address, Net: "unix"})
	}
	if network != "tcp" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	addrs, err := resolve(ctx, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if len(addrs) == 1 {
		return d.dialTCP(ctx, addrs[0])
	}
	return d.race(ctx, addrs)
}

// resolve returns the addresses behind address, at least one, the preferred ones
// first (RFC 6724).
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(address); err == nil {
		return []netip.AddrPort{a}, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, err
	}
	if host == "" { // as in package net
		host = "localhost"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	if len(addrs) == 0 {
		return nil, &net.AddrError{Err: "no addresses", Addr: host}
	}
	return addrs, nil
}

// dialer dials one address.
type dialer struct {
	poller  *Poller
	network string
	opt     DialOptions
}

// race tries addrs in turn and returns the first connection; of the errors, the
// first one.
func (d dialer) race(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	var won net.Conn
	var lost error
	running := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for running > 0 || len(addrs) > 0 {
		select {
		case <-timer.C:
			if len(addrs) == 0 {
				break
			}
			addr := addrs[0]
			addrs = addrs[1:]
			running++
			go func() {
				conn, err := d.dialTCP(ctx, addr)
				results <- result{conn, err}
			}()
			timer.Reset(fallbackDelay)
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				if lost == nil {
					lost = r.err
				}
				timer.Reset(0)
			case won == nil:
				won, addrs = r.conn, nil
				cancel() // the others are told, and waited for
			default:
				r.conn.Close()
			}
		}
	}
	if won == nil {
		return nil, lost
	}
	return won, nil
}

func (d dialer) dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	sa, family := sockaddrOf(addr)
	return d.dial(ctx, sa, family, net.TCPAddrFromAddrPort(addr))
}

// dial makes one attempt, and another one in the cases in which the kernel's
// choice of a port was an accident.
func (d dialer) dial(ctx context.Context, sa unix.Sockaddr, family int, addr net.Addr) (net.Conn, error) {
	for attempt := 1; ; attempt++ {
		conn, err := d.attempt(ctx, sa, family, addr)
		if err == nil && !selfConnected(conn) {
			return conn, nil
		}
		if err == nil {
			conn.Close()
			err = os.NewSyscallError("connect", unix.ECONNREFUSED)
		} else if !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, d.failed(addr, err)
		}
		if attempt == 3 {
			return nil, d.failed(addr, err)
		}
	}
}

func (d dialer) failed(addr net.Addr, err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError("connect", err)
	}
	return &net.OpError{Op: "dial", Net: d.network, Addr: addr, Err: err}
}

// selfConnected reports whether a socket is connected to itself: that happens if
// nobody listens on a port which the kernel then chooses for the client.
func selfConnected(c *Conn) bool {
	to, ok := c.remote.(*net.TCPAddr)
	if !ok || !to.IP.IsLoopback() {
		return false
	}
	from, ok := c.LocalAddr().(*net.TCPAddr)
	return ok && from.Port == to.Port && from.IP.Equal(to.IP)
}

func (d dialer) attempt(ctx context.Context, sa unix.Sockaddr, family int, addr net.Addr) (*Conn, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := d.poller.newConn(fd, d.network, addr)
	if d.network == "tcp" {
		err = setTCP(fd, d.opt.KeepAlive, d.opt.UserTimeout)
	}
	if near, ok := d.opt.Near.(*Conn); ok && err == nil && near.poller == d.poller {
		c.prefer = near.inLoop()
	}
	if err == nil {
		err = c.connect(ctx, sa)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connect waits until c is connected.
func (c *Conn) connect(ctx context.Context, sa unix.Sockaddr) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		again := false
		err := c.until(ctx.Done(), writing, func(fd int) error {
			err := unix.Connect(fd, sa)
			if err == unix.EINPROGRESS {
				// Over the loopback interface it is done already, as the second call says.
				err = unix.Connect(fd, sa)
			}
			switch {
			case err == unix.EISCONN:
				return nil
			case err == unix.EALREADY, err == unix.EINPROGRESS:
				return unix.EAGAIN // to be waited for
			case err == unix.EAGAIN:
				again = true // a UNIX socket's queue is full, for which there is no event
				return nil
			}
			return err
		})
		if err == errDone {
			err = ctx.Err()
		}
		if err != nil || !again {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
