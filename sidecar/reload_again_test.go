package sidecar_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
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

// obtainer is an ACME authority that gives up when told.
type obtainer struct{ giveUp chan error }

func (o obtainer) Run(ctx context.Context, _ func(*tls.Certificate)) error {
	select {
	case err := <-o.giveUp:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (o obtainer) Challenge(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, errors.New("none")
}

// An identity that will never come ends its own tunnels' service, not the others'; a reload tries again. With the last one
// ends the sidecar.
func TestAnIdentityThatIsGivenUp(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	web := in
	web.Name, web.Listen = "web", freeAddr(t)
	web.Identity = identity.Config{ACME: identity.ACME{FQDN: "web.test", Email: "a@web.test", AgreeToTOS: true}}
	web.Policy = policy.Config{DisableAuthentication: true}
	var made atomic.Int32
	o := obtainer{make(chan error)}
	deps := sidecar.Deps{Identity: identity.Deps{ACME: func(identity.ACME, *slog.Logger) (identity.Obtainer, error) {
		made.Add(1)
		return o, nil
	}}}
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, web}, Deps: deps})
	o.giveUp <- errors.New("the authority says no")
	if rec := m.log.await("an identity is given up, and its tunnels refuse every connection: reload to try again", 1)[0]; rec["error"] != "the authority says no" {
		t.Errorf("%v", rec)
	}
	if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
		t.Errorf("the other tunnels: %q, %v", got, err)
	}
	check(t, m.with(t, in, out, web))
	if n := made.Load(); n != 2 {
		t.Errorf("%d attempts to have an identity, want another one after a reload", n)
	}
	check(t, m.with(t, web))
	o.giveUp <- errors.New("and no again")
	if err := m.wait(t); err == nil || err.Error() != "identity: and no again" {
		t.Errorf("%v", err)
	}
}

// A time limit for identities is not one for those that a reload took away.
func TestIdentityTimeout(t *testing.T) {
	ca := testca.New(t, "one.test")
	here, absent := agent(t, ca.SVID(t, dbID), ca.Bundle()), workloadtest.New(t)
	tunnel := sidecar.Tunnel{Name: "t", Mode: sidecar.Server, Listen: "127.0.0.1:0", Target: "127.0.0.1:1", Policy: policy.Config{AllowAll: true}}
	tunnel.Identity.WorkloadAPI = absent.Addr()
	other := tunnel
	other.Name, other.Identity.WorkloadAPI = "other", here.Addr()
	t.Run("passes", func(t *testing.T) {
		m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{tunnel}, IdentityTimeout: 50 * time.Millisecond})
		if err := m.wait(t); err == nil || !strings.HasPrefix(err.Error(), "no identity within 50ms: ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("is held to", func(t *testing.T) {
		m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{other}, IdentityTimeout: limit})
		m.log.await("identity received", 1)
		check(t, m.stop(t))
	})
	t.Run("means nothing to what is gone", func(t *testing.T) {
		m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{tunnel, other}, IdentityTimeout: 300 * time.Millisecond})
		check(t, m.with(t, other))
		select {
		case err := <-m.done:
			m.done <- err
			t.Errorf("ended: %v", err)
		case <-time.After(600 * time.Millisecond): // nothing is to happen
		}
	})
}

// token is a PKCS#11 key.
type token struct {
	*ecdsa.PrivateKey
	open *atomic.Int32
}

func (k token) Close() error {
	k.open.Add(-1)
	return nil
}

// What a configuration opened that came to nothing is closed again.
func TestReloadThatFailsClosesWhatItOpened(t *testing.T) {
	in, out := chain(t, "127.0.0.1:1")
	var open atomic.Int32
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, dbID)
	deps := sidecar.Deps{Identity: identity.Deps{PKCS11: func(identity.PKCS11, crypto.PublicKey) (crypto.Signer, error) {
		open.Add(1)
		return token{svid.PrivateKey.(*ecdsa.PrivateKey), &open}, nil
	}}}
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out}, Deps: deps})
	dir := t.TempDir()
	testca.Write(t, filepath.Join(dir, "cert.pem"), testca.PEM(svid.Certificates...))
	safe := in
	safe.Name, safe.Listen = "safe", freeAddr(t)
	safe.Identity = identity.Config{Cert: filepath.Join(dir, "cert.pem"), PKCS11: identity.PKCS11{Module: "m", TokenLabel: "t"}}
	blocked := safe
	blocked.Name, blocked.Listen = "blocked", fmt.Sprintf("unix:%s/cert.pem", dir)
	if err := m.with(t, in, out, safe, blocked); err == nil {
		t.Error("reloaded")
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d keys are open", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "cert.pem")); err != nil {
		t.Error(err)
	}
}

// Reloads of all kinds, looks at the status, connections and the end may come at once.
func TestReloadsAndTheEndTogether(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	unix := out
	unix.Name, unix.Listen = "unix", "unix:"+filepath.Join(socketDir(t), "s")
	narrow := in
	narrow.Limits.Connections, narrow.Policy.DenyURIs = 2, []string{"spiffe://one.test/other"}
	sets := [][]sidecar.Tunnel{{in, out}, {in, unix}, {narrow, out, unix}, {out}, {in, in}}
	for round := range 2 {
		m := startMany(t, sidecar.Config{Tunnels: sets[0], Status: sidecar.Status{Listen: "http://127.0.0.1:0"}, ShutdownTimeout: limit, DrainIdle: time.Millisecond})
		addr := m.status
		var all sync.WaitGroup
		over := make(chan struct{})
		again := func(f func(n int)) {
			all.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					default:
						f(n)
					}
				}
			})
		}
		for range 2 {
			again(func(n int) {
				cfg := m.cfg
				cfg.Tunnels = sets[n%len(sets)]
				if err := m.sidecar.Reload(t.Context(), cfg); err != nil && n%len(sets) < 4 && !errors.Is(err, sidecar.ErrNotRunning) {
					t.Errorf("reload: %v", err)
				}
			})
		}
		again(func(int) { m.sidecar.ReloadFiles(t.Context()) })
		again(func(int) { m.sidecar.ReloadFailed(errors.New("told")) })
		again(func(int) { roundTrip(t, out.Listen, "x") })
		again(func(int) {
			if c, err := net.Dial("tcp", addr); err == nil {
				io.WriteString(c, "GET /_status HTTP/1.0\r\n\r\n")
				io.Copy(io.Discard, c)
				c.Close()
			}
		})
		m.log.connections(10)
		if round%2 == 0 {
			m.sidecar.Shutdown()
		} else {
			m.cancel()
		}
		if err := m.wait(t); err != nil {
			t.Error(err)
		}
		close(over)
		all.Wait()
	}
}

// Nobody waits for an identity that its tunnel has lost.
func TestReloadEndsTheWaitForAnIdentity(t *testing.T) {
	in, out := chain(t, backend(t, echo))
	lost := out
	lost.Name, lost.Listen, lost.ConnectTimeout = "lost", freeAddr(t), 2*limit
	lost.Identity.WorkloadAPI = workloadtest.New(t).Addr()
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, lost}, Status: sidecar.Status{Listen: "http://127.0.0.1:0"}})
	waiting := dial(t, lost.Listen)
	_, err := io.WriteString(waiting, "x")
	check(t, err)
	m.until(t, `lanyard_sidecar_open_connections{direction="outbound",tunnel="lost"}`, "1")
	check(t, m.with(t, in))
	if _, err := io.ReadAll(waiting); isCleanEnd(err) {
		t.Error("it ended in order")
	}
	if rec := m.log.connections(1)[0]; rec["cause"] != "no identity yet" || !strings.Contains(rec["error"].(string), "its tunnel has another one now, or none") {
		t.Errorf("%v", rec)
	}
}
