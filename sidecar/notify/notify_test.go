package notify_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/notify"
)

// systemd is a socket as systemd has it.
func systemd(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "notify")
}

// next is the next message.
func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

func TestMessages(t *testing.T) {
	for name, socket := range map[string]string{"path": socketPath(t), "abstract": "@lanyard-test-" + strconv.Itoa(os.Getpid())} {
		t.Run(name, func(t *testing.T) {
			conn := systemd(t, socket)
			n := notify.New(notify.Config{Socket: socket})
			expect := func(err error, want string) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				if got := next(t, conn); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			expect(n.Ready("listening\nREADY=0"), "READY=1\nSTATUS=listening READY=0")
			expect(n.Status("2 connections"), "STATUS=2 connections")
			expect(n.Stopping("draining"), "STOPPING=1\nSTATUS=draining")

			before := monotonic(t)
			if err := n.Reloading("reading"); err != nil {
				t.Fatal(err)
			}
			after := monotonic(t)
			lines := strings.Split(next(t, conn), "\n")
			if len(lines) != 3 || lines[0] != "RELOADING=1" || lines[2] != "STATUS=reading" {
				t.Fatalf("got %q", lines)
			}
			usec, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "MONOTONIC_USEC="), 10, 64)
			if err != nil || usec < before || usec > after {
				t.Errorf("%s: %v, want %d to %d", lines[1], err, before, after)
			}
		})
	}
}

func TestWatchdogIsFedOnlyWhileAlive(t *testing.T) {
	socket := socketPath(t)
	conn := systemd(t, socket)
	n := notify.New(notify.Config{Socket: socket, Watchdog: 4 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var asked, dead atomic.Int64
	done := make(chan struct{})
	deadEnough := make(chan struct{})
	go func() {
		defer close(done)
		n.Watchdog(ctx, func() bool {
			if asked.Add(1) <= 3 {
				return true
			}
			if dead.Add(1) == 3 {
				close(deadEnough)
			}
			return false
		}, func(err error) { t.Error(err) })
	}()
	for range 3 {
		if got := next(t, conn); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	<-deadEnough
	cancel()
	<-done
	// What was sent is in the queue by now.
	conn.SetReadDeadline(time.Now())
	if n, err := conn.Read(make([]byte, 64)); err == nil {
		t.Errorf("fed while dead: %d bytes", n)
	}
}

func TestWatchdogTellsOnceThatItCannotBeFed(t *testing.T) {
	n := notify.New(notify.Config{Socket: socketPath(t), Watchdog: 2 * time.Millisecond}) // nobody listens
	ctx, cancel := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	n.Watchdog(ctx, func() bool {
		if asked.Add(1) == 4 {
			cancel()
		}
		return true
	}, func(err error) {
		failed.Add(1)
		if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "sd_notify: ") {
			t.Errorf("got %v", err)
		}
	})
	if failed.Load() != 1 {
		t.Errorf("told %d times", failed.Load())
	}
}

func TestWithoutSystemdNothingIsSent(t *testing.T) {
	var none *notify.Notifier
	for _, n := range []*notify.Notifier{none, notify.New(notify.Config{}), notify.New(notify.Config{Watchdog: time.Second})} {
		n.Watchdog(t.Context(), func() bool { t.Error("asked"); return true }, func(err error) { t.Error(err) })
		if err := errors.Join(n.Ready(""), n.Reloading(""), n.Status(""), n.Stopping("")); err != nil {
			t.Error(err)
		}
	}
}

func TestFromEnv(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, tt := range map[string]struct {
		env  map[string]string
		want notify.Config
		err  string
	}{
		"empty":    {},
		"path":     {env: map[string]string{"NOTIFY_SOCKET": "/run/n"}, want: notify.Config{Socket: "/run/n"}},
		"watchdog": {env: map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": self}, want: notify.Config{Socket: "@n", Watchdog: 30 * time.Second}},
		"any pid":  {env: map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1"}, want: notify.Config{Socket: "@n", Watchdog: time.Microsecond}},
		"other pid": {env: map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1" + self},
			want: notify.Config{Socket: "@n"}},
		"vsock": {env: map[string]string{"NOTIFY_SOCKET": "vsock:2:1"}, err: `NOTIFY_SOCKET "vsock:2:1" is neither a path nor @NAME: systemd is not notified`},
		"zero": {env: map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, want: notify.Config{Socket: "@n"},
			err: `WATCHDOG_USEC "0" is no number of microseconds from 1 to 31536000000000: the watchdog is not fed`},
		"huge": {env: map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "9223372036854775807"}, want: notify.Config{Socket: "@n"},
			err: `WATCHDOG_USEC "9223372036854775807" is no number of microseconds from 1 to 31536000000000: the watchdog is not fed`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := notify.FromEnv(func(k string) string { return tt.env[k] })
			text := ""
			if err != nil {
				text = err.Error()
			}
			if got != tt.want || text != tt.err {
				t.Errorf("got %+v, %q; want %+v, %q", got, text, tt.want, tt.err)
			}
		})
	}
}

func FuzzFromEnv(f *testing.F) {
	f.Add("/run/systemd/notify", "30000000", "1")
	f.Add("@abstract", "-1", "")
	f.Add("vsock:2:1", "9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, socket, usec, pid string) {
		cfg, _ := notify.FromEnv(func(k string) string {
			return map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}[k]
		})
		if cfg.Watchdog < 0 || cfg.Socket != "" && cfg.Socket != socket {
			t.Errorf("got %+v", cfg)
		}
	})
}
