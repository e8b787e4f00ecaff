package sidecar_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/policy/rego"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// with reloads m with tunnels.
func (m *many) with(t *testing.T, tunnels ...sidecar.Tunnel) error {
	t.Helper()
	m.cfg.Tunnels = tunnels
	return m.sidecar.Reload(t.Context(), m.cfg)
}

// A tunnel may be taken away and come back at once, while its old connections go on: its address is free by then, and the
// file of its socket is the new one's.
func TestReloadBringsATunnelBack(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	path := filepath.Join(socketDir(t), "out")
	unix := out
	unix.Name, unix.Listen = "unix", "unix:"+path
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, unix}})
	old := dial(t, out.Listen)
	for i := range 20 {
		exchange(t, old, "still here")
		check(t, m.with(t, in))
		if err := m.with(t, in, out, unix); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
		c, err := net.Dial("unix", path)
		check(t, err)
		exchange(t, c, "x")
		c.Close()
	}
}

// An address that overlaps one of this sidecar's own can't be had before that is given up; "stop that process" would be no
// good advice.
func TestReloadToAnOverlappingAddress(t *testing.T) {
	in, out := chain(t, "127.0.0.1:1")
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}})
	wider := in
	wider.Listen = strings.Replace(in.Listen, "127.0.0.1", "0.0.0.0", 1)
	err := m.with(t, wider, out)
	var e *setting.Error
	if !errors.As(err, &e) || e.Key != "listen" || !strings.Contains(err.Error(), `overlaps `+in.Listen+`, which tunnel "in" has`) {
		t.Errorf("%v", err)
	}
	check(t, m.with(t, out))
	check(t, m.with(t, wider, out))
}

// Port 0 is a port of its own for each tunnel, and stays that over a reload.
func TestPortZeroOfSeveralTunnels(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	out.Listen = "127.0.0.1:0"
	twin := out
	twin.Name = "twin"
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, twin}})
	for range 2 {
		for _, name := range []string{"out", "twin"} {
			if got, err := roundTrip(t, m.ready.Tunnels[name].String(), "x"); got != "x" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		check(t, m.with(t, twin, out, in))
	}
}

// A tunnel that a reload takes away drains for as long as the new configuration says.
func TestRemovedTunnelsDrainAsTheNewConfigurationSays(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}})
	c := dial(t, out.Listen)
	exchange(t, c, "x")
	m.cfg.ShutdownTimeout = time.Millisecond
	check(t, m.with(t, in))
	if _, err := io.ReadAll(c); isCleanEnd(err) {
		t.Error("it ended in order")
	}
	for _, rec := range m.log.connections(1) {
		if rec["tunnel"] == "out" && (rec["cause"] != "shutdown" || rec["error"] != "shutdown timeout: 1ms passed with 1 connections still open: closed them") {
			t.Errorf("%v", rec)
		}
	}
}

// A policy file that changed is not taken over by a reload that fails for another reason.
func TestReloadThatFailsLeavesThePolicyAlone(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	path := filepath.Join(t.TempDir(), "policy.rego")
	write := func(rule string) { testca.Write(t, path, []byte("package lanyard\nimport rego.v1\n"+rule)) }
	write("allow := true")
	in.Policy = policy.Config{Rego: policy.Rego{Path: path, Query: "data.lanyard.allow"}}
	deps := sidecar.Deps{Policy: policy.Deps{Rego: func(c policy.Rego) (policy.Engine, error) { return rego.New(c, nil) }}}
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}, Deps: deps})
	answered := func(want bool) {
		t.Helper()
		if got, err := roundTrip(t, out.Listen, "x"); (got == "x" && err == nil) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	blocked := out
	blocked.Name, blocked.Listen = "blocked", taken.Addr().String()
	answered(true)
	write("allow := false")
	m.cfg.Deps = sidecar.Deps{} // those of the start count
	if err := m.with(t, in, out, blocked); err == nil {
		t.Error("reloaded")
	}
	answered(true)
	check(t, m.with(t, in, out))
	answered(false)
	write("allow := true")
	check(t, m.sidecar.ReloadFiles(t.Context()))
	answered(true)
}
