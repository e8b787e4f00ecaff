package integration

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// Gap 5: with ghostunnel, 18 of 20 connections outlived a lifetime of 1 s by the whole close timeout.
func TestGap05MaxConnLifetimeIsTheLongest(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	stubborn := serve(t, func(conn *net.TCPConn) { // ignores the other side's end
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	})
	const lifetime = time.Second
	server := s.sidecar("server", "server", stubborn, "--allow-all", "--max-conn-lifetime", lifetime.String(), "--close-timeout", "60s")
	client := s.sidecar("client", "client", server.Listen, "--verify-uri", s.id("server"))
	server.Probed(1)
	begun := time.Now()
	conns := make([]*net.TCPConn, 20)
	for i := range conns {
		conns[i] = open(t, client.Listen)
		if i%2 == 0 { // half of them have said their last
			if err := conns[i].CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, conn := range conns {
		_, _ = io.Copy(io.Discard, conn)
	}
	if lasted := time.Since(begun); lasted < lifetime || lasted > 5*time.Second {
		t.Errorf("the last of 20 connections ended after %v, its lifetime being %v", lasted, lifetime)
	}
	connections(t, server, 20, "max age")
}

// Gap 24: ghostunnel waits for the Workload API with its port bound, no status, and is killed by SIGHUP.
func TestGap24StartsBeforeItsAgent(t *testing.T) {
	t.Parallel()
	d := harness.NewDomain(t, bin, harness.Options{})
	start := func(name, mode, target, rule, peer string) (string, *harness.Sidecar) {
		binary := d.Copy(d.SidecarBinary(), name)
		return binary, d.Sidecar(harness.SidecarSpec{
			Name: name, Binary: binary, Mode: mode, Target: target, WorkloadAPI: d.WorkloadAPI(), NotReadyIsFine: true,
			Args: []string{rule, d.ID("/" + peer), "--connect-timeout", "1s", "--log-format", "json"},
		})
	}
	web, server := start("web", "server", echo(t), "--allow-uri", "user")
	user, client := start("user", "client", server.Listen, "--verify-uri", "web")
	for _, side := range []*harness.Sidecar{client, server} {
		d.Until(fetchLimit, side.Name+" to tell its health", func(ctx context.Context) error {
			if _, err := harness.Get(ctx, harness.NewConns(), "http://"+side.Status+"/_status"); err == nil || !strings.Contains(err.Error(), "503") {
				return errors.Join(errors.New("ready without an identity, or no answer"), err)
			}
			return nil
		})
		if err := syscall.Kill(side.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := tryExchange(open(t, client.Listen), "too early"); err == nil {
		t.Error("served without an identity")
	}
	connections(t, client, 2, "no identity yet", "reset", "closed") // the first is how the listener was waited for
	d.Start()
	d.Entry(d.ID("/web"), web, 0)
	d.Entry(d.ID("/user"), user, 0)
	d.Until(fetchLimit, "an answer", func(context.Context) error { return tryExchange(open(t, client.Listen), "in time") })
	for _, side := range []*harness.Sidecar{client, server} {
		if !side.Running() {
			t.Errorf("%s was killed by SIGHUP", side.Name)
		}
	}
}

// health is what /_status says of the process as a whole.
type health struct {
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

func getHealth(ctx context.Context, side *harness.Sidecar) (h health, code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+side.Status+"/_status", nil)
	if err != nil {
		return h, 0, err
	}
	resp, err := harness.NewConns().Do(req)
	if err != nil {
		return h, 0, err
	}
	defer resp.Body.Close()
	return h, resp.StatusCode, json.NewDecoder(resp.Body).Decode(&h)
}

// Gap 25: idle connections hold ghostunnel's drain for all of its 5 minutes, and its status port refuses at once.
func TestGap25IdleConnectionsDontHoldTheDrain(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	p := s.pair(echo(t), "--drain-idle", "1s", "--shutdown-timeout", "60s")
	client, server := p.client, p.server
	idle, busy := open(t, client.Listen), open(t, client.Listen)
	exchange(t, idle, "hello")
	exchange(t, busy, "hello")
	if err := syscall.Kill(server.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if line, err := server.WaitFor(t.Context(), "shutting down"); err != nil {
		t.Fatal(line, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, idle)
		ended <- err
	}()
	begun := time.Now()
	for drained := false; !drained; {
		exchange(t, busy, "still here") // each of them keeps it from being idle
		h, code, err := getHealth(t.Context(), server)
		if err != nil || code != http.StatusServiceUnavailable || h.OK || h.Message != "stopping" {
			t.Fatalf("the status during the drain: %d, %+v, %v", code, h, err)
		}
		select {
		case <-ended:
			drained = true
		case <-time.After(50 * time.Millisecond):
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the idle connection holds the drain")
		}
	}
	if lasted := time.Since(begun); lasted < 900*time.Millisecond {
		t.Errorf("the idle connection was closed after %v already", lasted)
	}
	exchange(t, busy, "and after it")
	busy.Close()
	if err := server.Wait(); err != nil {
		t.Errorf("the end of a drain: %v", err)
	}
}

// The rest of gap 25: connections that move all the time end with the timeout, which the exit code and a line tell.
func TestGap25DrainTimeoutSaysWhatItCut(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	p := s.pair(echo(t), "--shutdown-timeout", "500ms")
	client, server := p.client, p.server
	busy := open(t, client.Listen)
	exchange(t, busy, "hello")
	if err := syscall.Kill(server.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for tryExchange(busy, "still here") == nil {
		<-time.After(10 * time.Millisecond)
	}
	if code := harness.ExitCode(server.Wait()); code != 1 || !strings.Contains(server.Log.Tail(5), "500ms passed with 1 connections still open") {
		t.Errorf("exit code %d, and it said:\n%s", code, server.Log.Tail(5))
	}
	connections(t, server, 1, "shutdown")
}
