package tlsend_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// ghostunnel has no ALPN, and stock gRPC clients refuse to go on without.
func TestGap20ALPN(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	from, to := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	for name, tt := range map[string]struct {
		client, server []string
		want           string
		refused        bool
	}{
		"both":           {client: []string{"http/1.1", "h2"}, server: []string{"h2", "http/1.1"}, want: "h2"},
		"neither":        {},
		"client is mute": {server: []string{"h2"}},
		"server is mute": {client: []string{"h2"}},
		"no overlap":     {client: []string{"x"}, server: []string{"h2"}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := meet(t, r, tlsend.Config{Policy: allowAll(t), NextProtos: tt.client}, tlsend.Config{Policy: allowAll(t), NextProtos: tt.server}, from, to)
			if tt.refused {
				wantCause(t, s, record.HandshakeFailed, "unsupported application protocols")
				wantCause(t, c, record.RefusedByPeer, "no application protocol")
				return
			}
			if wantClosed(t, c, s); c.ALPN != tt.want || s.ALPN != tt.want {
				t.Errorf("client %q, server %q, want %q", c.ALPN, s.ALPN, tt.want)
			}
		})
	}
}

func TestRecordTellsTheHandshake(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	from, to := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	for _, tt := range []struct {
		max            uint16
		suites         []uint16
		version, group string
		cipher         string
	}{
		{0, nil, "TLS 1.3", "X25519MLKEM768", "TLS_AES_128_GCM_SHA256"},
		{tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}, "TLS 1.2", "X25519", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
	} {
		c, s := meet(t, r, tlsend.Config{Policy: allowAll(t), ServerName: "db.test"},
			tlsend.Config{Policy: allowAll(t), MaxVersion: tt.max, CipherSuites: tt.suites}, from, to)
		for _, rec := range []*record.Record{c, s} {
			wantClosed(t, rec)
			if rec.TLSVersion != tt.version || rec.Group != tt.group || rec.Cipher != tt.cipher || rec.ServerName != "db.test" ||
				rec.Handshake <= 0 || rec.Rule == "" || rec.Peer.IsZero() {
				t.Errorf("record %+v", rec)
			}
		}
	}
	c, _ := meet(t, r, tlsend.Config{Policy: allowAll(t), MinVersion: tls.VersionTLS13}, tlsend.Config{Policy: allowAll(t), MaxVersion: tls.VersionTLS12}, from, to)
	if c.Cause == record.Closed || c.TLSVersion != "" || c.Handshake != 0 {
		t.Errorf("record %+v", c)
	}
}

// connected is a policy that wants to know the connection.
type connected struct {
	policyFunc
	asked chan context.Context
}

func (connected) NeedsConnection() bool { return true }

func (c connected) Decide(ctx context.Context, r policy.Request) policy.Decision {
	c.asked <- ctx
	return c.policyFunc(r)
}

// What the policy is asked is complete, and it is asked once a connection.
func TestPolicyIsAskedAboutTheConnection(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	from, to := r.svids(ca.SVID(t, "spiffe://one.test/a"), ca), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	var mu sync.Mutex
	var got policy.Request
	p := connected{func(r policy.Request) policy.Decision {
		mu.Lock()
		defer mu.Unlock()
		got = r
		return policy.Decision{Allowed: true, Rule: "mine"}
	}, make(chan context.Context, 100)}
	srv := r.serve(tlsend.NewServer(tlsend.Config{Policy: p, Tunnel: "db", Listen: "l", Target: "t"}), to)
	client := tlsend.NewClient(tlsend.Config{Policy: allowAll(t), ServerName: "db.test"})
	for i := range 3 { // resumed from the second one on
		wantClosed(t, r.connect(client, from, srv.addr))
		rec := srv.last(t)
		if rec.Rule != "mine" || rec.Resumed != (i > 0) {
			t.Errorf("record %+v", rec)
		}
		ctx := <-p.asked
		if _, ok := ctx.Deadline(); !ok || len(p.asked) > 0 {
			t.Errorf("asked %d times more; deadline %v", len(p.asked), ok)
		}
		mu.Lock()
		if got.Own.String() != "spiffe://one.test/b" || got.Peer.String() != "spiffe://one.test/a" || got.Certificate == nil || got.Tunnel != "db" ||
			got.Direction != policy.Inbound || got.ServerName != "db.test" || got.ClientAddr != rec.Client || got.Listen != "l" || got.Target != "t" {
			t.Errorf("request %+v", got)
		}
		mu.Unlock()
	}
}

func TestNoIdentityAndExpired(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	ended, stop := context.WithCancelCause(t.Context())
	stop(errors.New("stopping"))
	for _, tt := range []struct {
		ctx  context.Context
		why  error
		want record.Cause
	}{
		{ctx, identity.ErrNone, record.NoIdentity}, {ctx, identity.ErrExpired, record.Expired}, {ended, identity.ErrNone, record.Shutdown},
	} {
		if cause, err := tlsend.NoIdentity(tt.ctx, tt.why); cause != tt.want || err == nil {
			t.Errorf("%s, %v, want %s", cause, err, tt.want)
		}
	}
}

// obtainer answers probes with a certificate of its own.
type obtainer struct {
	update chan func(*tls.Certificate)
	probe  *tls.Certificate
}

func (o *obtainer) Run(ctx context.Context, update func(*tls.Certificate)) error {
	o.update <- update
	<-ctx.Done()
	return nil
}

func (o *obtainer) Challenge(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.probe, nil }

// An authority's probe is answered before there is a certificate, by nobody but this protocol alone, and goes no further.
func TestACMEProbes(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	cert := func(name string) *tls.Certificate {
		c, key := ca.Leaf(t, testca.Host(name))
		return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	}
	o := &obtainer{make(chan func(*tls.Certificate), 1), cert("probe.test")}
	src, err := identity.New(identity.Config{ACME: identity.ACME{FQDN: "db.test", Email: "a@db.test", AgreeToTOS: true}},
		identity.Deps{ACME: func(identity.ACME, *slog.Logger) (identity.Obtainer, error) { return o, nil }})
	if err == nil {
		err = src.Load(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	srv := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t), NextProtos: []string{"h2", "acme-tls/1"}}), src)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	ask := func(name string, protos ...string) (tls.ConnectionState, *record.Record) {
		t.Helper()
		var seen tls.ConnectionState
		stock(t, srv.addr, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: protos, InsecureSkipVerify: true,
			VerifyConnection: func(cs tls.ConnectionState) error { seen = cs; return nil }})
		return seen, srv.last(t)
	}
	probed := func() {
		t.Helper()
		cs, rec := ask("db.test", "acme-tls/1")
		if cs.NegotiatedProtocol != "acme-tls/1" || len(cs.PeerCertificates) != 1 || !cs.PeerCertificates[0].Equal(o.probe.Leaf) {
			t.Errorf("the probe got %q, %v", cs.NegotiatedProtocol, cs.PeerCertificates)
		}
		if rec.Cause != record.Closed || rec.Rule != "ACME challenge" {
			t.Errorf("record %+v", rec)
		}
	}
	probed()
	_, rec := ask("db.test", "h2")
	wantCause(t, rec, record.NoIdentity, "no certificate to show yet")

	real := cert("db.test")
	(<-o.update)(real)
	probed()
	for _, protos := range [][]string{{"acme-tls/1", "h2"}, {"h2"}, nil} {
		cs, rec := ask("db.test", protos...)
		if len(cs.PeerCertificates) != 1 || !cs.PeerCertificates[0].Equal(real.Leaf) {
			t.Errorf("%q got %v", protos, cs.PeerCertificates)
		}
		wantCause(t, rec, record.HandshakeFailed, "didn't provide a certificate")
	}
	// A policy that wants the connection changes nothing of it.
	asking := connected{func(policy.Request) policy.Decision { return policy.Decision{Allowed: true} }, make(chan context.Context, 1)}
	plain := srv.end.Swap(tlsend.NewServer(tlsend.Config{Policy: asking}))
	if probed(); len(asking.asked) > 0 {
		t.Error("a probe came as far as the policy")
	}
	srv.end.Store(plain)
	if cs, rec := ask("", "acme-tls/1"); rec.Rule != "" || cs.NegotiatedProtocol != "" {
		t.Errorf("without SNI it is no probe: %+v", rec)
	}
}
