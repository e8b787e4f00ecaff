package sockets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// shortDir is short: t.TempDir's path may be longer than a socket's can be.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// setup is what one agent is started with; two of one setup have the same
// data_dir and sockets.
func setup(t *testing.T, names ...string) Config {
	t.Helper()
	dir := shortDir(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{DataDir: data, Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, name := range names {
		cfg.Specs = append(cfg.Specs, Spec{Name: name, Path: filepath.Join(dir, "run", name+".sock"), Mode: 0o777, UID: -1, GID: -1})
	}
	return cfg
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(p))
	return len(p), nil
}

// agent is a Set that serves: each connection is told the agent's name once for
// each line it sends.
type agent struct {
	set  *Set
	stop context.CancelFunc
	done chan error
	up   chan struct{}
}

// start runs an agent to its end. A non-nil fail is what it returns at once,
// without having served.
func start(t *testing.T, name string, cfg Config, fail error) *agent {
	t.Helper()
	set, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	set.every = 10 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	a := &agent{set: set, stop: stop, done: make(chan error, 1), up: make(chan struct{}, 8)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := set.Run(ctx, func(ctx context.Context) error {
			if fail != nil {
				return fail
			}
			return serve(ctx, set, name, func() {
				set.Ready(name + " serves")
				a.up <- struct{}{}
			})
		})
		a.done <- errors.Join(err, set.Close(false))
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	if fail == nil {
		a.serves(t)
	}
	return a
}

func (a *agent) serves(t *testing.T) {
	t.Helper()
	select {
	case <-a.up:
	case err := <-a.done:
		t.Fatalf("ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("does not serve")
	}
}

func (a *agent) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-a.done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
		return nil
	}
}

// serve answers on all sockets until ctx ends, then ends all connections, as an
// agent that drains.
func serve(ctx context.Context, set *Set, name string, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for socket := range set.sockets {
		l := set.Listener(socket)
		defer l.Close()
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { answer(ctx, conn, name) })
			}
		})
	}
	ready()
	<-ctx.Done()
	return nil
}

func answer(ctx context.Context, conn net.Conn, name string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	// What was asked is answered before it ends, as calls are.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) })
	defer stop()
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		if _, err := fmt.Fprintln(conn, name); err != nil {
			return
		}
	}
}

// ask connects, asks once, and returns who answered.
func ask(path string) (string, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "who?\n"); err != nil {
		return "", err
	}
	name, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", err
	}
	return name[:len(name)-1], nil
}

func wantAnswer(t *testing.T, path, want string) {
	t.Helper()
	if got, err := ask(path); got != want || err != nil {
		t.Errorf("%s answered %q, %v; want %q", path, got, err, want)
	}
}

// eventually polls: files have no events that a test should rely on.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// runHelper is an agent in a process of its own, which ends when it is told to.
func runHelper(t *testing.T, cfg Config) {
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	set, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := strconv.Itoa(os.Getpid())
	err = set.Run(ctx, func(ctx context.Context) error {
		return serve(ctx, set, name, func() { set.Ready("pid " + name + " serves") })
	})
	if err := errors.Join(err, set.Close(false)); err != nil {
		t.Fatal(err)
	}
}
