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
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

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
	m := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in, out, web}, Deps: deps, Status: sidecar.Status{Listen: "http://127.0.0.1:0"}})
	o.giveUp <- errors.New("the authority says no")
	if rec := m.log.await("an identity is given up, and its tunnels refuse every connection: reload to try again", 1)[0]; rec["error"] != "the authority says no" {
		t.Errorf("%v", rec)
	}
	if got, err := roundTrip(t, out.Listen, "x"); got != "x" || err != nil {
		t.Errorf("the other tunnels: %q, %v", got, err)
	}
	code, body := getStatus(t, "tcp", m.status)
	if code != 503 || !body.Tunnels[0].OK || body.Tunnels[2].OK || body.Identities[2].SourceError != "the authority says no" {
		t.Errorf("%d, %+v", code, body)
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
