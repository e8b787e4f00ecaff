package poll

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refusing is a TCP address at which nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestDialRefused(t *testing.T) {
	noneLeft(t)
	p := newPoller(t)
	for _, to := range [][2]string{{"tcp", refusing(t)}, {"unix", listenOnce(t)}} {
		_, err := p.Dial(t.Context(), to[0], to[1], DialOptions{})
		op, ok := errors.AsType[*net.OpError](err)
		if !errors.Is(err, syscall.ECONNREFUSED) || !ok || op.Addr.String() != to[1] {
			t.Errorf("%s: %v", to[0], err)
		}
	}
	_, err := p.Dial(t.Context(), "unix", filepath.Join(shortDir(t), "none"), DialOptions{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for network, address := range map[string]string{"tcp": "127.0.0.1", "udp": "127.0.0.1:1"} {
		if _, err := p.Dial(t.Context(), network, address, DialOptions{}); err == nil {
			t.Errorf("%s %s", network, address)
		}
	}
}

// listenOnce is the path of a socket that nobody serves any more.
func listenOnce(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	check(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	defer l.Close()
	return l.Addr().String()
}

// full is a listener that does not answer: its queue is full.
func full(t *testing.T, network string) string {
	t.Helper()
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	family := unix.AF_INET
	if network == "unix" {
		sa, family = &unix.SockaddrUnix{Name: filepath.Join(shortDir(t), "s")}, unix.AF_UNIX
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	check(t, unix.Bind(fd, sa))
	check(t, unix.Listen(fd, 0))
	bound, err := unix.Getsockname(fd)
	check(t, err)
	name, err := syscall.Getsockname(fd)
	check(t, err)
	for range 3 {
		c, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		t.Cleanup(func() { unix.Close(c) })
		unix.Connect(c, bound)
	}
	return addrOf(name).String()
}

func TestDialEndsWithItsContext(t *testing.T) {
	noneLeft(t)
	p := newPoller(t)
	eachNetwork(t, func(t *testing.T, network string) {
		address := full(t, network)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := p.Dial(ctx, network, address, DialOptions{})
		var netErr net.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() {
			t.Errorf("at its deadline: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, stop)
		if _, err := p.Dial(ctx, network, address, DialOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// An address that does not answer does not hold up the next one for long; of
// several errors the first is told.
func TestDialTriesAddressesInTurn(t *testing.T) {
	noneLeft(t)
	p := newPoller(t)
	l := listen(t, p, "tcp")
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	d := dialer{p, "tcp", DialOptions{}}
	for _, addrs := range [][]netip.AddrPort{
		{at(refusing(t)), at(l.Addr().String())},
		{at(full(t, "tcp")), at(l.Addr().String())},
		{at(l.Addr().String()), at(full(t, "tcp"))},
	} {
		c, err := d.race(t.Context(), addrs)
		check(t, err)
		if c.RemoteAddr().String() != l.Addr().String() {
			t.Errorf("connected to %v", c.RemoteAddr())
		}
		c.Close()
	}
	first := refusing(t)
	_, err := d.race(t.Context(), []netip.AddrPort{at(first), at(refusing(t))})
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Addr.String() != first {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.race(ctx, []netip.AddrPort{at(full(t, "tcp")), at(full(t, "tcp"))}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestDialByName(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	_, port, err := net.SplitHostPort(l.Addr().String())
	check(t, err)
	for _, host := range []string{"localhost:", ":"} {
		c, err := p.Dial(t.Context(), "tcp", host+port, DialOptions{})
		check(t, err)
		c.Close()
	}
	if _, err := p.Dial(t.Context(), "tcp", "localhost:no-such-service", DialOptions{}); err == nil {
		t.Error("no-such-service was found")
	}
}

// The kernel may give a client the very port that it connects to.
func TestSelfConnectIsNoConnection(t *testing.T) {
	p := newPoller(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	self, err := unix.Getsockname(fd)
	check(t, err)
	name, err := syscall.Getsockname(fd)
	check(t, err)
	c := p.newConn(fd, "tcp", addrOf(name))
	defer c.Close()
	check(t, c.connect(t.Context(), self))
	if !selfConnected(c) {
		t.Error("not noticed")
	}
}

// A socket that was dialled beside another one is in the same loop.
func TestDialNear(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	a, _ := connect(t, p, l)
	check(t, a.SetReadDeadline(time.Now().Add(time.Millisecond)))
	a.Read(make([]byte, 1)) // puts it into a loop
	for range 4 {
		c, err := p.Dial(t.Context(), "tcp", l.Addr().String(), DialOptions{Near: a})
		check(t, err)
		check(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		c.Read(make([]byte, 1))
		if c.(*Conn).inLoop() != a.inLoop() {
			t.Error("another loop")
		}
		c.Close()
	}
}
