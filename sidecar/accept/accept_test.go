package accept_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

const limit = 30 * time.Second

// handler brings connections up as their first byte says: "h" hangs, any other is the name of the peer, whose bytes then
// come back, but for "d", whose target is down.
type handler struct {
	buffers pipe.Buffers
	poller  *poll.Poller
	echo    string // address of an echo server
}

func (h *handler) Connect(ctx context.Context, a *accept.Attempt) (client, target *pipe.End) {
	name := make([]byte, 1)
	stop := context.AfterFunc(ctx, func() { a.Conn.Close() })
	_, err := io.ReadFull(a.Conn, name)
	if err == nil && name[0] == 'h' {
		io.Copy(io.Discard, a.Conn)
	}
	if !stop() || err != nil || name[0] == 'h' {
		a.Conn.Close()
		a.Record.End(record.HandshakeTimeout, context.Cause(ctx))
		return nil, nil
	}
	a.Record.PeerSubject = string(name)
	if !a.Admit(ctx) {
		a.Conn.Close()
		return nil, nil
	}
	backend, err := h.poller.Dial(ctx, "tcp", h.echo, poll.DialOptions{})
	if err == nil && name[0] == 'd' {
		backend.Close()
		err = errors.New("down")
	}
	if err != nil {
		a.Conn.Close()
		a.Record.End(record.DialFailed, err)
		if ctx.Err() != nil {
			a.Record.End(record.Shutdown, context.Cause(ctx))
		}
		return nil, nil
	}
	in, err := pipe.NewSocket(a.Conn, &h.buffers)
	out, outErr := pipe.NewSocket(backend, &h.buffers)
	if err := errors.Join(err, outErr); err != nil {
		panic(err)
	}
	return pipe.Plain(in), pipe.Plain(out)
}

// rig is a running Loop.
type rig struct {
	t       *testing.T
	full    accept.Settings
	metrics *metrics.Set
	addr    string
	loop    *accept.Loop
	cancel  context.CancelFunc
	ended   chan error

	mu      sync.Mutex
	changed *sync.Cond
	records []slog.Record
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
	}
	return nil
}

func start(t *testing.T, s accept.Settings) *rig {
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
	s.Handler, s.Tunnel, s.Direction, s.Target = &handler{poller: poller, echo: echo(t)}, "test", record.Inbound, "echo"
	set := metrics.New(metrics.Config{Serve: true})
	s.Metrics = set.Tunnel("test", record.Inbound)
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = limit
	}
	if s.ShutdownTimeout == 0 {
		s.ShutdownTimeout = limit
	}
	r := &rig{t: t, full: s, metrics: set, addr: l.Addr().String(), ended: make(chan error, 1)}
	r.changed = sync.NewCond(&r.mu)
	r.loop = &accept.Loop{Listener: l, Log: slog.New(r)}
	r.loop.Set(&s)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- r.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
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

// echo is the address of a server that sends back what comes, and ends when its client does, but for one that ends with "!".
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				if said, err := io.ReadAll(io.TeeReader(c, c)); err == nil && strings.HasSuffix(string(said), "!") {
					<-over
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(over)
	})
	return l.Addr().String()
}

// Beyond the limit clients wait; they are not refused.
func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1}})
	first := r.connect("aone")
	expect(t, first, "one")
	second := r.connect("btwo")
	second.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Fatal("the second was served beside the first")
	}
	second.SetReadDeadline(time.Now().Add(limit))
	first.Close()
	expect(t, second, "two")
}

func TestConnectionsOfOnePeerAreRefusedBeyondItsLimit(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{PerPeer: 1}})
	first := r.connect("aone")
	expect(t, first, "one")
	gone(t, r.connect("atwo"))
	expect(t, r.connect("bone"), "one")
	if got := r.causes(1)[0]; !strings.Contains(got, "a has 1 connections open already (limits.per_peer)") {
		t.Error(got)
	}
	first.Close()
	r.causes(2)
	expect(t, r.connect("athree"), "three")
}

// Gap 26: handshakes that never end do not keep connections out.
func TestGap26HandshakeFloodGivesWay(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Handshakes: 3}, ConnectTimeout: 5 * time.Second})
	established := r.connect("aone")
	expect(t, established, "one")
	for range 5 {
		r.connect("h")
	}
	expect(t, r.connect("btwo"), "two")
	for _, cause := range r.causes(3)[:3] {
		if !strings.HasPrefix(cause, "refused: limit: ") || !strings.Contains(cause, "too many handshakes in flight") {
			t.Error(cause)
		}
	}
	io.WriteString(established, "still")
	expect(t, established, "still")
}

// Gap 25: what moves may finish, what is silent is ended.
func TestGap25DrainEndsSilentConnections(t *testing.T) {
	r := start(t, accept.Settings{DrainIdle: 2 * time.Second})
	silent, busy := r.connect("aone"), r.connect("bone")
	expect(t, silent, "one")
	expect(t, busy, "one")
	r.cancel()
	go func() {
		for { // until the silent one is gone
			if _, err := io.WriteString(busy, "x"); err != nil {
				return
			}
			if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
				return
			}
		}
	}()
	gone(t, silent)
	if got := r.causes(1)[0]; !strings.Contains(got, "idle") {
		t.Error(got)
	}
	busy.Close()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestShutdownTimeoutEndsWhatIsLeft(t *testing.T) {
	r := start(t, accept.Settings{ShutdownTimeout: time.Millisecond})
	c := r.connect("aone")
	expect(t, c, "one")
	r.connect("h")
	for r.loop.Handshakes() == 0 {
		runtime.Gosched()
	}
	r.cancel()
	if err := r.wait(); err == nil || !strings.Contains(err.Error(), "passed with 2 connections still open") {
		t.Error(err)
	}
	gone(t, c)
	for _, cause := range r.causes(2) {
		if !strings.Contains(cause, "shutdown timeout") {
			t.Error(cause)
		}
	}
}
