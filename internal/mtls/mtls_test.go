package mtls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// source is an identity that tests change at will.
type source struct {
	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	version uint64
}

func newSource(svid *x509svid.SVID, bundles ...*x509bundle.Bundle) *source {
	return &source{svid: svid, bundles: x509bundle.NewSet(bundles...)}
}

func (s *source) SVID() (*x509svid.SVID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.svid == nil {
		return nil, errors.New("no identity yet")
	}
	return s.svid, nil
}

func (s *source) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bundles.GetX509BundleForTrustDomain(td)
}

func (s *source) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *source) change(f func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// handshake connects client and server over loopback, passes a byte each way,
// and returns both errors and the client's view of the connection.
func handshake(t *testing.T, client, server *tls.Config) (cs tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() { done <- serve(l, server) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: client}
	conn, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return cs, err, <-done
	}
	defer conn.Close()
	// Reading past the server's byte takes in the session ticket too.
	if _, err := conn.Write([]byte("x")); err == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	cs = conn.(*tls.Conn).ConnectionState()
	return cs, clientErr, <-done
}

func serve(l net.Listener, cfg *tls.Config) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	srv := tls.Server(conn, cfg)
	if err := srv.Handshake(); err != nil {
		return err
	}
	if _, err := io.ReadFull(srv, make([]byte, 1)); err != nil {
		return err
	}
	_, err = srv.Write([]byte("y"))
	return err
}

func wantRefused(t *testing.T, clientErr, serverErr error, text string) {
	t.Helper()
	if serverErr == nil && clientErr == nil {
		t.Fatal("the connection was accepted")
	}
	if all := errors.Join(clientErr, serverErr).Error(); !strings.Contains(all, text) {
		t.Errorf("errors %q do not say %q", all, text)
	}
}

func TestHandshakeAccepted(t *testing.T) {
	ca := testca.New(t, "one.test")
	a := newSource(ca.SVID(t, "spiffe://one.test/a"), ca.Bundle())
	b := newSource(ca.SVID(t, "spiffe://one.test/b"), ca.Bundle())
	cs, cErr, sErr := handshake(t,
		mtls.Client(a, mtls.Exactly(spiffeid.RequireFromString("spiffe://one.test/b")), mtls.Options{}),
		mtls.Server(b, mtls.Exactly(spiffeid.RequireFromString("spiffe://one.test/a")), mtls.Options{}))
	if cErr != nil || sErr != nil {
		t.Fatalf("client: %v, server: %v", cErr, sErr)
	}
	id, err := mtls.PeerID(cs)
	if err != nil || id.String() != "spiffe://one.test/b" {
		t.Errorf("peer is %v, %v", id, err)
	}
}

func TestHandshakeRefused(t *testing.T) {
	one, two := testca.New(t, "one.test"), testca.New(t, "two.test")
	impostor := testca.New(t, "one.test")
	good := one.SVID(t, "spiffe://one.test/a")
	// A leaf of one.test's name, signed by two.test's authority, which is
	// trusted, but for its own domain only.
	crossed := two.SVID(t, "spiffe://one.test/a")
	expired := one.SVID(t, "spiffe://one.test/a", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	twoURIs := one.SVID(t, "spiffe://one.test/a", func(c *x509.Certificate) {
		c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "one.test", Path: "/b"})
	})
	tests := map[string]struct {
		peer *x509svid.SVID
		want string
	}{
		"other authority":      {impostor.SVID(t, "spiffe://one.test/a"), "claims to be spiffe://one.test/a"},
		"crossed trust domain": {crossed, "claims to be spiffe://one.test/a"},
		"trust domain alone":   {one.SVID(t, "spiffe://one.test"), "names a trust domain, not a workload"},
		"expired":              {expired, "expired"},
		"two URI SANs":         {twoURIs, "URI"},
		"unknown domain":       {testca.New(t, "three.test").SVID(t, "spiffe://three.test/a"), "three.test"},
		"wrong ID":             {one.SVID(t, "spiffe://one.test/other"), "refused spiffe://one.test/other"},
	}
	auth := mtls.Exactly(spiffeid.RequireFromString("spiffe://one.test/a"))
	for name, tt := range tests {
		t.Run(name+"/as client", func(t *testing.T) {
			_, cErr, sErr := handshake(t,
				mtls.Client(newSource(tt.peer, one.Bundle()), mtls.Any, mtls.Options{}),
				mtls.Server(newSource(good, one.Bundle(), two.Bundle()), auth, mtls.Options{}))
			wantRefused(t, cErr, sErr, tt.want)
		})
		t.Run(name+"/as server", func(t *testing.T) {
			_, cErr, sErr := handshake(t,
				mtls.Client(newSource(good, one.Bundle(), two.Bundle()), auth, mtls.Options{}),
				mtls.Server(newSource(tt.peer, one.Bundle()), mtls.Any, mtls.Options{}))
			wantRefused(t, cErr, sErr, tt.want)
		})
	}
	t.Run("no client certificate", func(t *testing.T) {
		_, cErr, sErr := handshake(t,
			mtls.Client(newSource(nil, one.Bundle()), mtls.Any, mtls.Options{}),
			mtls.Server(newSource(good, one.Bundle()), mtls.Any, mtls.Options{}))
		wantRefused(t, cErr, sErr, "certificate")
	})
}

// A session ticket must not outlive the policy or the bundle it was earned
// under, on either side.
func TestResumedSessionsAreVerifiedAgain(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "one.test")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			a := newSource(ca.SVID(t, "spiffe://one.test/a"), ca.Bundle())
			b := newSource(ca.SVID(t, "spiffe://one.test/b"), ca.Bundle())
			var clientDenies, serverDenies error
			client := mtls.Client(a, func(spiffeid.ID) error { return clientDenies },
				mtls.Options{SessionCache: tls.NewLRUClientSessionCache(8)})
			client.MaxVersion = version
			client.ServerName = "b" // the cache's key; ports differ
			server := mtls.Server(b, func(spiffeid.ID) error { return serverDenies }, mtls.Options{})

			// mustResume leaves the client with a ticket that works.
			mustResume := func() {
				t.Helper()
				for range 2 {
					cs, cErr, sErr := handshake(t, client, server)
					if cErr != nil || sErr != nil {
						t.Fatalf("client: %v, server: %v", cErr, sErr)
					}
					if cs.DidResume {
						return
					}
				}
				t.Fatal("the session was not resumed")
			}
			mustResume()

			serverDenies = errors.New("policy changed")
			_, cErr, sErr := handshake(t, client, server)
			wantRefused(t, cErr, sErr, "policy changed")
			serverDenies = nil

			mustResume()
			clientDenies = errors.New("client policy changed")
			_, cErr, sErr = handshake(t, client, server)
			wantRefused(t, cErr, sErr, "client policy changed")
			clientDenies = nil

			mustResume()
			b.change(func(s *source) { s.bundles = x509bundle.NewSet(other.Bundle()) })
			_, cErr, sErr = handshake(t, client, server)
			wantRefused(t, cErr, sErr, "x509svid")
		})
	}
}

func TestTicketKeysChangeWithIdentity(t *testing.T) {
	ca := testca.New(t, "one.test")
	a := newSource(ca.SVID(t, "spiffe://one.test/a"), ca.Bundle())
	b := newSource(ca.SVID(t, "spiffe://one.test/b"), ca.Bundle())
	client := mtls.Client(a, mtls.Any, mtls.Options{SessionCache: tls.NewLRUClientSessionCache(8)})
	client.ServerName = "b"
	server := mtls.Server(b, mtls.Any, mtls.Options{})
	resumed := func() bool {
		cs, cErr, sErr := handshake(t, client, server)
		if cErr != nil || sErr != nil {
			t.Fatalf("client: %v, server: %v", cErr, sErr)
		}
		return cs.DidResume
	}
	resumed()
	if !resumed() {
		t.Fatal("not resumed while nothing changed")
	}
	b.change(func(s *source) { s.svid = ca.SVID(t, "spiffe://one.test/b") })
	if resumed() {
		t.Error("resumed after the server's SVID was rotated")
	}
	b.change(func(s *source) { s.version++ })
	if resumed() {
		t.Error("resumed after a bundle changed")
	}
}

func TestServerOptional(t *testing.T) {
	ca := testca.New(t, "one.test")
	server := mtls.ServerOptional(newSource(ca.SVID(t, "spiffe://one.test/b"), ca.Bundle()),
		mtls.Exactly(spiffeid.RequireFromString("spiffe://one.test/a")), mtls.Options{DisableTickets: true})
	if _, cErr, sErr := handshake(t, mtls.Client(newSource(nil, ca.Bundle()), mtls.Any, mtls.Options{}), server); cErr != nil || sErr != nil {
		t.Errorf("without a certificate: client: %v, server: %v", cErr, sErr)
	}
	_, cErr, sErr := handshake(t, mtls.Client(newSource(ca.SVID(t, "spiffe://one.test/x"), ca.Bundle()), mtls.Any, mtls.Options{}), server)
	wantRefused(t, cErr, sErr, "refused spiffe://one.test/x")
}

func TestServerWithoutIdentity(t *testing.T) {
	ca := testca.New(t, "one.test")
	_, cErr, sErr := handshake(t,
		mtls.Client(newSource(ca.SVID(t, "spiffe://one.test/a"), ca.Bundle()), mtls.Any, mtls.Options{}),
		mtls.Server(newSource(nil, ca.Bundle()), mtls.Any, mtls.Options{}))
	wantRefused(t, cErr, sErr, "no identity to serve with")
}
