package poll

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const limit = 20 * time.Second // what a test waits for anything at most

func newPoller(t testing.TB) *Poller {
	t.Helper()
	p, err := New(Config{Loops: 2})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return p
}

// networks are what sockets can be of.
var networks = []string{"tcp", "unix"}

func listen(t testing.TB, p *Poller, network string) *Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(shortDir(t), "s")
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // some options are not for it
	nl, err := lc.Listen(t.Context(), network, address)
	check(t, err)
	l, err := p.Listener(nl)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns both ends of a connection: accepted and dialled.
func connect(t testing.TB, p *Poller, l *Listener) (accepted, dialled *Conn) {
	t.Helper()
	c, err := p.Dial(t.Context(), l.network, l.Addr().String(), DialOptions{})
	check(t, err)
	a, err := l.Accept()
	check(t, err)
	t.Cleanup(func() {
		a.Close()
		c.Close()
	})
	return a.(*Conn), c.(*Conn)
}

// pair is a connection in a Poller of its own.
func pair(t testing.TB, network string) (accepted, dialled *Conn) {
	t.Helper()
	p := newPoller(t)
	return connect(t, p, listen(t, p, network))
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what the kernel has no event for.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// within fails the test if f does not return.
func within(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		buf := make([]byte, 1<<20)
		t.Fatalf("nothing happened\n%s", buf[:runtime.Stack(buf, true)])
	}
}

func eachNetwork(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) { f(t, network) })
	}
}

// noneLeft checks, at the end of the test, that it left no goroutine and no file
// descriptor.
func noneLeft(t *testing.T) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= goroutines })
		if n := openFiles(t); n > fds {
			t.Errorf("%d file descriptors, %d before", n, fds)
		}
	})
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}
