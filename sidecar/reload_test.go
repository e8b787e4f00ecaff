package sidecar_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// many is a sidecar with several tunnels, whose configuration a test changes.
type many struct {
	*running
	cfg   sidecar.Config
	ready sidecar.Addrs
}

func startMany(t *testing.T, cfg sidecar.Config) *many {
	t.Helper()
	m := &many{running: &running{log: newJournal(t), done: make(chan error, 1)}}
	ready := make(chan sidecar.Addrs, 1)
	cfg.Log = slog.New(slog.NewJSONHandler(m.log, nil))
	cfg.Ready = func(a sidecar.Addrs) { ready <- a }
	m.cfg = cfg
	var err error
	m.sidecar, err = sidecar.New(cfg)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	m.cancel = cancel
	go func() { m.done <- m.sidecar.Run(ctx) }()
	select {
	case m.ready = <-ready:
	case err := <-m.done:
		cancel()
		t.Fatalf("Run: %v", err)
	}
	if m.ready.Status != nil {
		m.status = m.ready.Status.String()
	}
	t.Cleanup(func() { m.stop(t) })
	return m
}

// freeAddr is a loopback address that nobody listens on: a reload needs one that
// is known beforehand.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

// chain is two tunnels of one sidecar: plaintext into the one, out of the other.
func chain(t *testing.T, target string) (in, out sidecar.Tunnel) {
	t.Helper()
	ca := testca.New(t, "one.test")
	web := identity.Config{WorkloadAPI: agent(t, ca.SVID(t, webID), ca.Bundle()).Addr()}
	db := identity.Config{WorkloadAPI: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()}
	in = sidecar.Tunnel{Name: "in", Mode: sidecar.Server, Listen: freeAddr(t), Target: target, Identity: db,
		Policy: policy.Config{AllowURIs: []string{webID}}}
	out = sidecar.Tunnel{Name: "out", Mode: sidecar.Client, Listen: freeAddr(t), Target: in.Listen, Identity: web,
		Policy: policy.Config{AllowURIs: []string{dbID}}}
	return in, out
}

// Gap 14: any number of tunnels in a process, both ways, each with its own
// identity and rules.
func TestGap14ManyTunnelsInOneProcess(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	strict := out
	strict.Name, strict.Listen, strict.Policy = "strict", freeAddr(t), policy.Config{AllowURIs: []string{"spiffe://one.test/other"}}
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, strict}, Status: sidecar.Status{Listen: "http://127.0.0.1:0"}})
	if got, err := roundTrip(t, out.Listen, "hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := roundTrip(t, strict.Listen, "hello"); isCleanEnd(err) {
		t.Errorf("answered %q", got)
	}
	byTunnel := map[any]map[string]any{}
	for _, rec := range m.log.connections(4) {
		if rec["tunnel"] == "in" && rec["cause"] != "closed" {
			continue // its end of the strict one's failure
		}
		byTunnel[rec["tunnel"]] = rec
	}
	for tunnel, want := range map[string][3]string{"in": {"closed", dbID, webID}, "out": {"closed", webID, dbID}, "strict": {"refused", webID, dbID}} {
		rec := byTunnel[tunnel]
		if got := [3]string{rec["cause"].(string), rec["spiffe_id"].(string), rec["peer_spiffe_id"].(string)}; got != want {
			t.Errorf("%s: %v, want %v", tunnel, got, want)
		}
	}
	code, body := getStatus(t, "tcp", m.status)
	// The target of the strict one is not whom it expects.
	if code != 503 || len(body.Tunnels) != 3 || len(body.Identities) != 2 || !body.Tunnels[0].OK || !body.Tunnels[1].OK ||
		body.Tunnels[2].Name != "strict" || !strings.Contains(body.Tunnels[2].BackendError, "does not match") {
		t.Errorf("%d, %+v", code, body)
	}
}

// Gap 15: the rules change while connections go on, and listeners stay.
func TestGap15ReloadKeepsConnectionsAndSockets(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}})
	old := dial(t, out.Listen)
	exchange(t, old, "before")

	in.Policy = policy.Config{AllowURIs: []string{"spiffe://one.test/admin"}}
	m.cfg.Tunnels = []sidecar.Tunnel{in, out}
	check(t, m.sidecar.Reload(t.Context(), m.cfg))
	exchange(t, old, "after")
	if got, err := roundTrip(t, out.Listen, "x"); isCleanEnd(err) {
		t.Errorf("the new rule is not in force: answered %q", got)
	}

	in.Policy = policy.Config{AllowURIs: []string{webID}}
	m.cfg.Tunnels = []sidecar.Tunnel{in, out}
	check(t, m.sidecar.Reload(t.Context(), m.cfg))
	if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	exchange(t, old, "to the end")
	if n := len(m.log.await("listening", 2)); n != 2 {
		t.Errorf("%d listeners were opened, want 2", n)
	}
}

func TestReloadAddsAndRemovesTunnels(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}})
	old := dial(t, out.Listen)
	exchange(t, old, "before")
	second := out
	second.Name, second.Listen = "second", "unix:"+filepath.Join(socketDir(t), "second")
	m.cfg.Tunnels = []sidecar.Tunnel{in, second}
	check(t, m.sidecar.Reload(t.Context(), m.cfg))
	waitRefused(t, out.Listen)
	exchange(t, old, "of a tunnel that is gone")
	c, err := net.Dial("unix", strings.TrimPrefix(second.Listen, "unix:"))
	check(t, err)
	defer c.Close()
	exchange(t, c, "of one that is new")
	check(t, old.CloseWrite())
	if _, err := io.ReadAll(old); err != nil {
		t.Error(err)
	}
}

// A tunnel may get another name, direction and target on the socket it has.
func TestReloadGivesASocketToAnotherTunnel(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}})
	in.Name, in.Target = "renamed", backend(t, func(c *net.TCPConn) { io.WriteString(c, "other"); c.CloseWrite(); io.Copy(io.Discard, c) })
	m.cfg.Tunnels = []sidecar.Tunnel{in, out}
	check(t, m.sidecar.Reload(t.Context(), m.cfg))
	if got, err := roundTrip(t, out.Listen, "x"); got != "other" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, rec := range m.log.connections(2) {
		if rec["tunnel"] == "in" {
			t.Errorf("recorded under its old name: %v", rec)
		}
	}
}

// Of a configuration that can't be had nothing is taken over.
func TestReloadIsAllOrNothing(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}, Status: sidecar.Status{Listen: "http://127.0.0.1:0"}})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	fresh := out
	fresh.Name, fresh.Listen = "fresh", freeAddr(t)
	blocked := out
	blocked.Name, blocked.Listen = "blocked", taken.Addr().String()
	denied := in
	denied.Policy = policy.Config{AllowURIs: []string{"spiffe://one.test/admin"}}
	noFile := fresh
	noFile.Identity = identity.Config{Cert: "/does/not/exist", Key: "/neither/does/this"}
	tests := map[string]struct {
		tunnels []sidecar.Tunnel
		want    string
	}{
		"a taken port":       {[]sidecar.Tunnel{denied, out, fresh, blocked}, `tunnel "blocked": listen ` + taken.Addr().String()},
		"an unreadable file": {[]sidecar.Tunnel{denied, out, noFile}, "/does/not/exist"},
		"an invalid tunnel":  {[]sidecar.Tunnel{denied, out, {Name: "empty"}}, `tunnel "empty": `},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := m.cfg
			cfg.Tunnels = tt.tunnels
			if err := m.sidecar.Reload(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
				t.Errorf("the old configuration does not go on: %q, %v", got, err)
			}
			waitRefused(t, fresh.Listen)
		})
	}
	if _, body := getStatus(t, "tcp", m.status); !body.OK || body.Message != status.Listening || !body.LastReload.IsZero() {
		t.Errorf("%+v", body)
	}
}

func TestReloadWhenNotRunning(t *testing.T) {
	in, _ := chain(t, "127.0.0.1:1")
	cfg := sidecar.Config{Tunnels: []sidecar.Tunnel{in}}
	s, err := sidecar.New(cfg)
	check(t, err)
	if err := s.Reload(t.Context(), cfg); !errors.Is(err, sidecar.ErrNotRunning) {
		t.Error(err)
	}
	if err := s.ReloadFiles(t.Context()); !errors.Is(err, sidecar.ErrNotRunning) {
		t.Error(err)
	}
}

// A removed UNIX listener takes its file along.
func TestReloadRemovesSocketFiles(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	path := filepath.Join(socketDir(t), "out")
	unix := out
	unix.Listen = "unix:" + path
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, unix}})
	m.cfg.Tunnels = []sidecar.Tunnel{in, out}
	check(t, m.sidecar.Reload(t.Context(), m.cfg))
	m.log.await("tunnel removed", 1)
	waitGone(t, path)
}

func waitGone(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; runtime.Gosched() {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", path)
		}
	}
}
