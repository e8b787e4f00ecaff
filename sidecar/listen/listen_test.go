package listen_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func parse(t *testing.T, s string) listen.Address {
	t.Helper()
	a, err := listen.Parse("listen", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustListen(t *testing.T, s string, opt listen.Options) net.Listener {
	t.Helper()
	l, err := listen.Listen(t.Context(), parse(t, s), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// socketDir is short: t.TempDir's path may be longer than a socket's can be.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// reach connects to l, by address, and returns the accepted end.
func reach(t *testing.T, l net.Listener, network, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Gap 22: :PORT was IPv4 only.
func TestGap22NoHostIsBothIPv4AndIPv6(t *testing.T) {
	l := mustListen(t, ":0", listen.Options{})
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	reach(t, l, "tcp4", net.JoinHostPort("127.0.0.1", port))
	if c, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6")
	} else {
		c.Close()
	}
	reach(t, l, "tcp6", net.JoinHostPort("::1", port))
}

// Gaps 22 and 27: with SO_REUSEPORT a second copy was silently let in, and connections went to either or were reset.
func TestGap22And27PortInUseNamesItsHolder(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "", "[::]"} {
		l := mustListen(t, host+":0", listen.Options{ReusePort: true}) // even if that one would share
		address := fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
		_, err := listen.Listen(t.Context(), parse(t, address), listen.Options{Key: "listen"})
		want := fmt.Sprintf("listen %s: already in use by pid %d (", address, os.Getpid())
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "choose another port") {
			t.Errorf("%v, want %q", err, want)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v is not EADDRINUSE", err)
		}
	}
}

func TestReusePortOnlyWhereAsked(t *testing.T) {
	first := mustListen(t, "127.0.0.1:0", listen.Options{ReusePort: true})
	mustListen(t, first.Addr().String(), listen.Options{ReusePort: true})
	alone := mustListen(t, "127.0.0.1:0", listen.Options{})
	if _, err := listen.Listen(t.Context(), parse(t, alone.Addr().String()), listen.Options{ReusePort: true}); err == nil {
		t.Error("a port was shared whose owner did not ask for it")
	}
}

func TestAcceptedConnectionsInheritKeepAlive(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0", listen.Options{
		UserTimeout: 7 * time.Second,
		KeepAlive:   net.KeepAliveConfig{Enable: true, Idle: 11 * time.Second, Interval: 2 * time.Second, Count: 4},
	})
	// Accepted below net, which sets these options again by itself.
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var fd int
	var acceptErr error
	err = raw.Control(func(lfd uintptr) {
		ready := []unix.PollFd{{Fd: int32(lfd), Events: unix.POLLIN}}
		for {
			if _, acceptErr = unix.Poll(ready, -1); acceptErr != unix.EINTR {
				break
			}
		}
		if acceptErr == nil {
			fd, _, acceptErr = unix.Accept4(int(lfd), unix.SOCK_CLOEXEC)
		}
	})
	if err := errors.Join(err, acceptErr); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for name, tt := range map[string]struct{ level, option, want int }{
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 11},
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 7000},
		"SO_PROTOCOL":      {unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP}, // no MPTCP
	} {
		if got, err := unix.GetsockoptInt(fd, tt.level, tt.option); err != nil || got != tt.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, tt.want)
		}
	}
}

// Gaps 13 and 22: no mode for UNIX sockets, and a stale one was fatal.
func TestGap13And22UNIXSocketHasAModeAndReplacesAStaleOne(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	for _, mode := range []os.FileMode{0, 0o660, 0o666} {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		l := mustListen(t, "unix:"+path, listen.Options{SocketMode: mode})
		want := mode
		if mode == 0 {
			want = listen.DefaultSocketMode
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, want)
		}
		reach(t, l, "unix", path)
		if _, err := listen.Listen(t.Context(), parse(t, "unix:"+path), listen.Options{Key: "listen"}); err == nil || !strings.Contains(err.Error(), "in use by pid") {
			t.Errorf("a live socket: %v", err)
		}
		l.Close()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the file stayed: %v", err)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	tests := map[string]string{
		"192.0.2.1:0":          "no interface of this machine has that address",
		"127.0.0.1:nosuchport": "nosuchport",
		"name.invalid:1":       "lookup name.invalid",
		"unix:@abstract":       "give unix:PATH",
		"unix:/proc/self/comm": "not a socket",
		"systemd:web":          "systemd handed no socket over",
	}
	for in, want := range tests {
		l, err := listen.Listen(t.Context(), parse(t, in), listen.Options{Key: "listen"})
		if err == nil {
			l.Close()
			t.Errorf("%s: accepted", in)
			continue
		}
		var wrong *setting.Error
		if !errors.As(err, &wrong) || wrong.Key != "listen" || wrong.Value != in || !strings.Contains(wrong.Problem, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	if _, err := listen.Listen(t.Context(), listen.Address{}, listen.Options{Key: "listen"}); err == nil {
		t.Error("no address was listened on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := listen.Listen(ctx, parse(t, "localhost:0"), listen.Options{Key: "listen"}); err == nil {
		t.Error("a name was resolved after the end")
	}
}

func echoOnce(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, c)
	return err
}
