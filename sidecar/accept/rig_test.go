package accept_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

const limit = 30 * time.Second

// rig is a running Loop.
type rig struct {
	t       *testing.T
	answer  func() // has the targets answer that keep their clients waiting
	full    accept.Settings
	metrics *metrics.Set
	addr    string
	loop    *accept.Loop
	cancel  context.CancelFunc
	ended   chan error

	mu      sync.Mutex
	changed *sync.Cond
	records []slog.Record // of connections

	troubles atomic.Int32 // other records
}

// Enabled, Handle, WithAttrs and WithGroup make it a slog.Handler that keeps the records of connections.
func (r *rig) Enabled(context.Context, slog.Level) bool { return true }
func (r *rig) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *rig) WithGroup(string) slog.Handler            { return r }
func (r *rig) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Message == "connection" {
		r.records = append(r.records, rec)
		r.changed.Broadcast()
	} else {
		r.troubles.Add(1)
	}
	return nil
}

func start(t *testing.T, s accept.Settings) *rig {
	t.Helper()
	return startWith(t, s, func(l net.Listener) net.Listener { return l })
}

// startWith has the Loop listen through what wrap returns.
func startWith(t *testing.T, s accept.Settings, wrap func(net.Listener) net.Listener) *rig {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	poller, err := poll.New(poll.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := poller.Listener(tcp)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	s.Handler, s.Tunnel, s.Direction, s.Target = &handler{poller: poller, echo: echo(t, over)}, "test", record.Inbound, "echo"
	set := metrics.New(metrics.Config{Serve: true})
	s.Metrics = set.Tunnel("test", record.Inbound)
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = limit
	}
	if s.ShutdownTimeout == 0 {
		s.ShutdownTimeout = limit
	}
	r := &rig{t: t, full: s, metrics: set, addr: l.Addr().String(), ended: make(chan error, 1)}
	r.answer = sync.OnceFunc(func() { close(over) })
	r.changed = sync.NewCond(&r.mu)
	r.loop = &accept.Loop{Listener: wrap(l), Log: slog.New(r)}
	r.loop.Set(&s)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- r.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		r.answer()
		r.wait()
		poller.Close()
		for deadline := time.Now().Add(limit); runtime.NumGoroutine() > goroutines+4; runtime.Gosched() {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
	return r
}

// set changes the limits.
func (r *rig) set(l accept.Limits) {
	s := r.full
	s.Limits = l
	r.loop.Set(&s)
}

// wait waits for Run to end and returns what it returned.
func (r *rig) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(limit):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// causes waits until n connections are recorded, and returns their causes in order.
func (r *rig) causes(n int) []string {
	r.t.Helper()
	stop := time.AfterFunc(limit, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.records = append(r.records, make([]slog.Record, n)...)
		r.changed.Broadcast()
	})
	defer stop.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.records) < n {
		r.changed.Wait()
	}
	var causes []string
	for _, rec := range r.records {
		rec.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "cause":
				causes = append(causes, a.Value.String())
			case "error":
				causes[len(causes)-1] += ": " + a.Value.String()
			}
			return true
		})
	}
	return causes
}

// connect opens a connection whose peer's name is the first byte of s.
func (r *rig) connect(s string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, s); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// expect reads s from c.
func expect(t *testing.T, c net.Conn, s string) {
	t.Helper()
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != s {
		t.Fatalf("got %q, %v; want %q", got, err, s)
	}
}

// gone waits until c has ended.
func gone(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n > 0 {
		t.Fatalf("%d bytes more, %v", n, err)
	}
}
