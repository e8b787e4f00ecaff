package sidecar_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
)

// Told to stop, a sidecar takes no more connections, and lets the open ones end.
func TestDrain(t *testing.T) {
	p := newPair(t, backend(t, echo))
	c := dial(t, p.client.addr)
	exchange(t, c, "before")
	p.client.cancel()
	p.server.cancel()
	p.client.log.await("shutting down", 1)
	p.server.log.await("shutting down", 1)
	exchange(t, c, "while draining")
	waitRefused(t, p.client.addr)
	check(t, c.CloseWrite())
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	if err := p.client.wait(t); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := p.server.wait(t); err != nil {
		t.Errorf("server: %v", err)
	}
	p.client.log.want(map[string]any{"cause": "closed", "drained": true, "forwarded": 20})
	p.server.log.want(map[string]any{"cause": "closed", "drained": true})
}

func exchange(t *testing.T, c net.Conn, msg string) {
	t.Helper()
	_, err := io.WriteString(c, msg)
	check(t, err)
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != msg {
		t.Fatalf("%q, %v", got, err)
	}
}

// waitRefused waits until nobody listens on addr.
func waitRefused(t *testing.T, addr string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s still accepts", addr)
		}
		runtime.Gosched()
	}
}

func TestDrainTimeout(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *spec) { client.ShutdownTimeout = 50 * time.Millisecond })
	c := dial(t, p.client.addr)
	exchange(t, c, "before")
	err := p.client.stop(t)
	if err == nil || err.Error() != "shutdown timeout: 50ms passed with 1 connections still open: closed them" {
		t.Errorf("Run: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); isCleanEnd(err) {
		t.Error("the application took it for the end")
	}
	p.client.log.want(map[string]any{"cause": "shutdown", "level": "WARN", "drained": true, "forwarded": 6, "error": "~shutdown timeout: 50ms"})
	p.server.log.want(map[string]any{"cause": "reset"})
}

// Nothing is left of a pair: no goroutine, no descriptor, no socket file.
func TestLeavesNothingBehind(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Run("pair", func(t *testing.T) {
		p := newPair(t, backend(t, echo), func(client, _ *spec) { client.Status = "127.0.0.1:0" })
		for range 20 {
			if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		// Some vanish without a goodbye, some never say a word.
		for range 5 {
			c := dial(t, p.client.addr)
			exchange(t, c, "x")
			c.SetLinger(0)
			c.Close()
			dial(t, p.server.addr).Close()
		}
		p.client.log.connections(25)
		p.server.log.connections(30)
	})
	deadline := time.Now().Add(limit)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > fds {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before; %d descriptors, %d before\n%s", runtime.NumGoroutine(), goroutines, openFiles(t), fds, stacks())
		}
		runtime.Gosched()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}

// What a sidecar says of its end comes in order, however short that is.
func TestSaysThatItStops(t *testing.T) {
	absent := workloadtest.New(t)
	for range 30 {
		r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: "127.0.0.1:1"}, WorkloadAPIAddr: absent.Addr()})
		check(t, r.stop(t))
		var said []string
		for _, rec := range r.log.records {
			if rec["level"] == "INFO" {
				said = append(said, rec["msg"].(string))
			}
		}
		if diff := cmp.Diff([]string{"listening", "shutting down", "stopped"}, said); diff != "" {
			t.Fatal(diff)
		}
	}
}
