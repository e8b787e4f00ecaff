package sidecar_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

func TestServerRefusesAnotherSPIFFEID(t *testing.T) {
	p := newPair(t, backend(t, echo), func(_, server *spec) { server.AllowURIs = []string{"spiffe://one.test/admin"} })
	if got, err := roundTrip(t, p.client.addr, "hello"); got != "" || isCleanEnd(err) {
		t.Errorf("%q, %v: the application took it for an answer", got, err)
	}
	p.server.log.want(map[string]any{"cause": "refused", "level": "WARN", "spiffe_id": dbID, "peer_spiffe_id": webID, "rule": "",
		"peer_unverified": nil, "error": "~--allow-uri spiffe://one.test/admin does not match " + webID, "forwarded": 0, "returned": 0})
	p.client.log.want(map[string]any{"cause": "refused by peer", "spiffe_id": webID, "peer_spiffe_id": dbID, "error": "~remote error: tls: bad certificate"})
}

func TestClientRefusesAnotherSPIFFEID(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *spec) {
		client.VerifyURIs = []string{"spiffe://one.test/other", "spiffe://two.test/**"}
	})
	if got, err := roundTrip(t, p.client.addr, "hello"); got != "" || isCleanEnd(err) {
		t.Errorf("%q, %v", got, err)
	}
	p.client.log.want(map[string]any{"cause": "refused", "peer_spiffe_id": dbID, "error": "~none of 2 --verify-uri matches " + dbID})
	p.server.log.want(map[string]any{"cause": "refused by peer"})
}

// A federated trust domain is verified by its own bundle, and a client expects
// its own domain only unless told otherwise.
func TestForeignTrustDomain(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	const foreign = "spiffe://two.test/db"
	server := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, two.SVID(t, foreign), two.Bundle(), one.Bundle()).Addr()})
	client := func(verify []string, known ...*testca.CA) *running {
		bundles := one.Bundle()
		a := agent(t, one.SVID(t, webID), bundles)
		if len(known) > 0 {
			a.Set(t, []*x509svid.SVID{one.SVID(t, webID)}, bundles, known[0].Bundle())
		}
		return start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: server.addr}, WorkloadAPIAddr: a.Addr(), VerifyURIs: verify})
	}
	t.Run("refused by default", func(t *testing.T) {
		c := client(nil, two)
		if got, err := roundTrip(t, c.addr, "hello"); got != "" || isCleanEnd(err) {
			t.Errorf("%q, %v", got, err)
		}
		c.log.want(map[string]any{"cause": "refused", "peer_spiffe_id": foreign,
			"error": "~" + foreign + " is not of the own trust domain one.test and no --verify-uri names it"})
	})
	t.Run("accepted by rule", func(t *testing.T) {
		c := client([]string{"spiffe://two.test/**"}, two)
		if got, err := roundTrip(t, c.addr, "hello"); got != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		c.log.want(map[string]any{"cause": "closed", "rule": "--verify-uri spiffe://two.test/**", "peer_spiffe_id": foreign})
	})
	t.Run("not federated", func(t *testing.T) {
		c := client([]string{"spiffe://two.test/**"})
		if got, err := roundTrip(t, c.addr, "hello"); got != "" || isCleanEnd(err) {
			t.Errorf("%q, %v", got, err)
		}
		c.log.want(map[string]any{"cause": "refused", "peer_spiffe_id": foreign, "peer_unverified": true, "error": "~no bundle of trust domain two.test"})
	})
	t.Run("wrong bundle", func(t *testing.T) {
		// The domain's name is known, with another authority.
		c := client([]string{"**"}, testca.New(t, "two.test"))
		if got, err := roundTrip(t, c.addr, "hello"); got != "" || isCleanEnd(err) {
			t.Errorf("%q, %v", got, err)
		}
		c.log.want(map[string]any{"cause": "refused", "peer_spiffe_id": foreign, "peer_unverified": true, "error": "~signed by unknown authority"})
	})
}

// resumer is a foreign client that keeps its session tickets.
type resumer struct{ config *tls.Config }

func newResumer(t *testing.T, svid *x509svid.SVID, ca *testca.CA, version uint16) *resumer {
	t.Helper()
	a := agent(t, svid, ca.Bundle())
	client, err := workload.New(workload.Config{Addr: a.Addr()})
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- client.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	id, err := identity.FromWorkloadAPI(client, spiffeid.ID{}).Wait(t.Context())
	check(t, err)
	cfg := mtls.Client(id, mtls.Any, mtls.Options{SessionCache: tls.NewLRUClientSessionCache(8)})
	cfg.ServerName = "same" // the session's key
	cfg.MaxVersion = version
	return &resumer{config: cfg}
}

// ask makes a connection and says whether it was answered, and resumed.
func (r *resumer) ask(t *testing.T, addr string) (resumed bool, err error) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, r.config)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return false, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		return false, err
	}
	return conn.ConnectionState().DidResume, conn.CloseWrite()
}

// A client that holds a session ticket is authorized again when the bundle
// changes: ghostunnel lets it in until the ticket ends.
func TestResumedSessionsAreAuthorizedAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
			own := one.SVID(t, dbID)
			a := agent(t, own, one.Bundle(), two.Bundle())
			server := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: a.Addr()})
			r := newResumer(t, two.SVID(t, "spiffe://two.test/web"), two, version)
			// Whom it talks to is not what this is about.
			r.config.VerifyConnection = nil
			if _, err := r.ask(t, server.addr); err != nil {
				t.Fatal(err)
			}
			if resumed, err := r.ask(t, server.addr); !resumed || err != nil {
				t.Fatalf("resumed %v, %v: this test needs a ticket that works", resumed, err)
			}
			server.log.connections(2)
			// The own SVID stays; the federation with two.test ends.
			a.Set(t, []*x509svid.SVID{own}, one.Bundle())
			server.log.await("identity received", 2)
			if _, err := r.ask(t, server.addr); err == nil {
				t.Fatal("a ticket from before let the client in")
			}
			recs := server.log.connections(3)
			if last := recs[2]; last["cause"] != "refused" || last["peer_spiffe_id"] != "spiffe://two.test/web" ||
				!strings.Contains(last["error"].(string), "no bundle of trust domain two.test") {
				t.Errorf("%v", last)
			}
			// The first two may be recorded in either order.
			if (recs[0]["resumed"] == true) == (recs[1]["resumed"] == true) {
				t.Errorf("%v\n%v", recs[0], recs[1])
			}
		})
	}
}

// Sessions are resumed between sidecars as long as nothing changed, and not
// after.
func TestOwnSessionsAreResumedWithinAVersion(t *testing.T) {
	p := newPair(t, backend(t, echo))
	ask := func() bool {
		t.Helper()
		n := p.client.log.count()
		if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		return p.client.log.connections(n + 1)[n]["resumed"] == true
	}
	ask()
	if !ask() {
		t.Error("not resumed while nothing changed")
	}
	// The agent says the same again: still nothing changed.
	state := p.ca.SVID(t, webID)
	p.webAgent.Set(t, []*x509svid.SVID{state}, p.ca.Bundle())
	p.client.log.await("identity received", 2)
	if ask() {
		t.Error("resumed under an own SVID that is no longer used")
	}
	p.webAgent.Set(t, []*x509svid.SVID{state}, p.ca.Bundle())
	p.client.log.await("identity received", 3)
	if !ask() {
		t.Error("not resumed although the agent only repeated itself")
	}
	p.dbAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, dbID)}, p.ca.Bundle())
	p.server.log.await("identity received", 2)
	if ask() {
		t.Error("resumed although the server's SVID was rotated")
	}
}

// Certificates that are no X.509-SVID, or of nobody known, are refused whatever
// the rules say.
func TestServerRefusesForeignCertificates(t *testing.T) {
	ca, impostor := testca.New(t, "one.test"), testca.New(t, "one.test")
	now := time.Now()
	tests := map[string]struct {
		svid *x509svid.SVID
		want string
	}{
		"impostor's authority": {impostor.SVID(t, webID), "unknown authority"},
		"expired":              {ca.SVID(t, webID, testca.Lifetime(now.Add(-time.Hour), now.Add(-time.Minute))), "expired"},
		"two SPIFFE IDs":       {ca.SVID(t, webID, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0].JoinPath("x")) }), "URI"},
		"no certificate":       {nil, "didn't provide a certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
			cfg := &tls.Config{InsecureSkipVerify: true}
			if tt.svid != nil {
				cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{tt.svid.Certificates[0].Raw}, PrivateKey: tt.svid.PrivateKey}}
			}
			r := &resumer{config: cfg}
			_, err := r.ask(t, server.addr)
			if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
				t.Errorf("the client saw %v, want an alert", err)
			}
			rec := server.log.want(map[string]any{"rule": "", "forwarded": 0, "error": "~" + tt.want})
			if rec["cause"] == "closed" {
				t.Errorf("%v", rec)
			}
		})
	}
}
