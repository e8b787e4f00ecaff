package tlsend_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/policy/rego"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// resumer is a stock client that holds session tickets of a server.
type resumer struct {
	t      *testing.T
	server *server
	config *tls.Config
}

func newResumer(t *testing.T, s *server, version uint16, cert tls.Certificate) *resumer {
	return &resumer{t, s, &tls.Config{MinVersion: version, MaxVersion: version, ServerName: "server", InsecureSkipVerify: true,
		Certificates: []tls.Certificate{cert}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}}
}

// mustResume leaves the client with a ticket that works.
func (r *resumer) mustResume() {
	r.t.Helper()
	for range 2 {
		cs, err := stock(r.t, r.server.addr, r.config)
		rec := r.server.last(r.t)
		if err != nil || rec.Cause != record.Closed {
			r.t.Fatalf("refused: %v, %s, %v", err, rec.Cause, rec.Err)
		}
		if cs.DidResume && rec.Resumed {
			return
		}
	}
	r.t.Fatal("the session was not resumed")
}

// mustFail connects with the ticket and is refused.
func (r *resumer) mustFail(want string) *record.Record {
	r.t.Helper()
	_, err := stock(r.t, r.server.addr, r.config)
	rec := r.server.last(r.t)
	if err == nil || rec.Cause != record.Refused || rec.Err == nil || !strings.Contains(rec.Err.Error(), want) {
		r.t.Fatalf("client %v; server %s, %v; want %q", err, rec.Cause, rec.Err, want)
	}
	return rec
}

// ghostunnel checks nothing on resumed sessions: a ticket outlives the policy and the authority it was earned under.
func TestGap01TicketsAreWorthNothingAfterAChange(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "one.test")
	client, own := ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/b")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Run("OPA policy reloaded", func(t *testing.T) { testOPAReload(t, version) })
			t.Run("rules replaced", func(t *testing.T) {
				r := newRig(t)
				source := r.svids(own, ca)
				s := r.serve(tlsend.NewServer(tlsend.Config{Policy: rules(t, policy.Config{AllowURIs: []string{"spiffe://one.test/a"}})}), source)
				c := newResumer(t, s, version, keyPair(client))
				c.mustResume()
				s.end.Store(tlsend.NewServer(tlsend.Config{Policy: rules(t, policy.Config{AllowURIs: []string{"spiffe://one.test/c"}})}))
				if rec := c.mustFail("spiffe://one.test/a"); rec.PeerClaimed || rec.Resumed {
					t.Errorf("record %+v", rec)
				}
			})
			t.Run("bundle replaced", func(t *testing.T) {
				r := newRig(t)
				source := r.svids(own, ca)
				s := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t)}), source)
				c := newResumer(t, s, version, keyPair(client))
				c.mustResume()
				source.write(t, "one.test", testca.PEM(other.Cert))
				source.reload(t)
				if rec := c.mustFail("claims to be spiffe://one.test/a"); !rec.PeerClaimed {
					t.Errorf("record %+v", rec)
				}
			})
			t.Run("CA file replaced", func(t *testing.T) {
				r := newRig(t)
				source := r.web(own.Certificates[0], own.PrivateKey, ca.Cert)
				s := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t)}), source)
				c := newResumer(t, s, version, keyPair(client))
				c.mustResume()
				source.write(t, "ca.pem", testca.PEM(other.Cert))
				source.reload(t)
				c.mustFail("x509: certificate signed by unknown authority")
			})
		})
	}
}

// The policy denies all after a reload. Nothing about the identity changed, so the session itself is resumed, and refused.
func testOPAReload(t *testing.T, version uint16) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	source := r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	path := filepath.Join(t.TempDir(), "p.rego")
	write := func(rule string) {
		if err := os.WriteFile(path, []byte("package lanyard\nimport rego.v1\n"+rule), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("allow := true")
	p, err := policy.Compile(policy.Config{Rego: policy.Rego{Path: path, Query: "data.lanyard.allow"}}, policy.Deps{
		Rego: func(c policy.Rego) (policy.Engine, error) { return rego.New(c, nil) }})
	if err == nil {
		err = policy.Reload(t.Context(), p)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := r.serve(tlsend.NewServer(tlsend.Config{Policy: p}), source)
	c := newResumer(t, s, version, keyPair(ca.SVID(t, "spiffe://one.test/a")))
	c.mustResume()
	write("allow := false")
	if err := policy.Reload(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if rec := c.mustFail("spiffe://one.test/a"); !rec.Resumed || rec.PeerClaimed {
		t.Errorf("record %+v", rec)
	}
	write("allow := true")
	if err := policy.Reload(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	c.mustResume()
}

// The client's own sessions are no different.
func TestGap01ClientsVerifyResumedServersToo(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "one.test")
	r := newRig(t)
	s := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t)}), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca))
	source := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca)
	denied := false
	p := policyFunc(func(r policy.Request) policy.Decision {
		return policy.Decision{Allowed: !denied, Rule: "test", Reason: "denied"}
	})
	client := tlsend.NewClient(tlsend.Config{Policy: p, ServerName: "server"})
	for i := range 2 {
		if rec := r.connect(client, source, s.addr); rec.Cause != record.Closed || rec.Resumed != (i == 1) {
			t.Fatalf("%d: %+v", i, rec)
		}
		s.last(t)
	}
	denied = true
	if rec := r.connect(client, source, s.addr); rec.Cause != record.Refused || rec.PeerClaimed || !rec.Resumed {
		t.Errorf("record %+v", rec)
	}
	s.last(t)
	denied = false
	source.write(t, "one.test", testca.PEM(other.Cert))
	source.reload(t)
	if rec := r.connect(client, source, s.addr); rec.Cause != record.Refused || !rec.PeerClaimed || rec.Resumed {
		t.Errorf("record %+v", rec)
	}
}

type policyFunc func(policy.Request) policy.Decision

func (f policyFunc) Decide(_ context.Context, r policy.Request) policy.Decision { return f(r) }

// ghostunnel's clients keep no sessions.
func TestGap31ClientsResumeSessions(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	s := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t)}), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca))
	source := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca)
	resumed := func(client *tlsend.End) bool {
		t.Helper()
		rec := r.connect(client, source, s.addr)
		if at := s.last(t); rec.Cause != record.Closed || rec.Resumed != at.Resumed {
			t.Fatalf("client %+v, server %+v", rec, at)
		}
		return rec.Resumed
	}
	cfg := tlsend.Config{Policy: allowAll(t), ServerName: "server"}
	client := tlsend.NewClient(cfg)
	if resumed(client) || !resumed(client) || !resumed(client) {
		t.Error("not resumed while nothing changed")
	}
	source.reload(t)
	if resumed(client) {
		t.Error("resumed with a new version of the identity")
	}
	if !resumed(client) {
		t.Error("not resumed")
	}
	if resumed(tlsend.NewClient(cfg)) {
		t.Error("a tunnel resumed another's session")
	}
	for _, at := range []string{"client", "server"} {
		t.Run("none at the "+at, func(t *testing.T) {
			off := cfg
			off.DisableResumption = true
			client := tlsend.NewClient(cfg)
			if at == "client" {
				client = tlsend.NewClient(off)
			} else {
				s.end.Store(tlsend.NewServer(off))
			}
			for range 3 {
				if resumed(client) {
					t.Error("resumed")
				}
			}
		})
	}
}
