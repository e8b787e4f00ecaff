package poll

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCloseEndsAccept(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network string) {
		l := listen(t, newPoller(t), network)
		failed := make(chan error)
		go func() {
			_, err := l.Accept()
			failed <- err
		}()
		eventually(t, "nobody waits", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.loop != nil
		})
		check(t, l.Close())
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// Accepting goes on after the process had no file descriptor left.
func TestAcceptWithoutDescriptors(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	client, err := net.Dial("tcp", l.Addr().String())
	check(t, err)
	defer client.Close()
	var all []int
	for {
		fd, err := unix.Dup(0)
		if err == unix.EMFILE {
			break
		}
		check(t, err)
		all = append(all, fd)
	}
	_, err = l.Accept()
	for _, fd := range all {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, net.ErrClosed) {
		t.Errorf("without a descriptor: %v", err)
	}
	c, err := l.Accept()
	check(t, err)
	c.Close()
}

func TestAcceptedSocketsHaveTheListenersOptions(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	keep := net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 4}
	check(t, l.SetOptions(ListenOptions{KeepAlive: keep, UserTimeout: 9 * time.Second}))
	accepted, plain := connect(t, p, l)
	dialled, err := p.Dial(t.Context(), "tcp", l.Addr().String(), DialOptions{KeepAlive: keep, UserTimeout: 9 * time.Second})
	check(t, err)
	defer dialled.Close()
	for _, c := range []*Conn{accepted, dialled.(*Conn)} {
		for _, o := range []struct{ level, name, want int }{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 7},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 3},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 9000},
		} {
			if got := option(t, c, o.level, o.name); got != o.want {
				t.Errorf("option %d of level %d is %d, want %d", o.name, o.level, got, o.want)
			}
		}
	}
	if option(t, plain, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 || option(t, plain, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 {
		t.Error("a connection that nothing was asked for")
	}
}

func option(t *testing.T, c *Conn, level, name int) (value int) {
	t.Helper()
	var err error
	check(t, c.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }))
	check(t, err)
	return value
}

// The file of a UNIX socket goes with the listener, unless the socket was handed to
// this process.
func TestSocketFile(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "unix")
	check(t, l.Close())
	if _, err := os.Stat(l.Addr().String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if nl, err := net.Listen("unix", "@lanyard-poll-test"); err == nil { // no file at all
		l, err := p.Listener(nl)
		check(t, err)
		check(t, l.Close())
	}
	path := filepath.Join(shortDir(t), "s")
	nl, err := net.Listen("unix", path)
	check(t, err)
	l, err = p.Listener(nl)
	check(t, err)
	l.path = "" // as for one that was handed over
	check(t, l.Close())
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// strangeListener has no file descriptor.
type strangeListener struct{ net.Listener }

func TestListenerMustBeASocket(t *testing.T) {
	p := newPoller(t)
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	if _, err := p.Listener(strangeListener{nl}); err == nil {
		t.Error("it was taken over")
	}
	if _, err := nl.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is open: %v", err)
	}
}

// Connections come and go on a few descriptors, so that each is used again and
// again; no byte and no end gets to the wrong one.
func TestChurn(t *testing.T) {
	noneLeft(t)
	p := newPoller(t)
	l := listen(t, p, "tcp")
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	var clients sync.WaitGroup
	for worker := range 10 {
		clients.Go(func() {
			for i := range 100 {
				churn(t, p, l, byte(worker*100+i), i%3 == 0)
			}
		})
	}
	within(t, clients.Wait)
	l.Close()
	within(t, all.Wait)
	if n := p.Open(); n != 0 {
		t.Errorf("%d sockets are open", n)
	}
}

func churn(t *testing.T, p *Poller, l *Listener, sign byte, reset bool) {
	c, err := p.Dial(t.Context(), "tcp", l.Addr().String(), DialOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	buf := make([]byte, 100)
	for i := range buf {
		buf[i] = sign
	}
	_, err = c.Write(buf)
	if err == nil && reset {
		c.(*Conn).Reset()
		return
	}
	got := make([]byte, 100)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(buf) {
		t.Errorf("%v, %v", got[:5], err)
	}
}
