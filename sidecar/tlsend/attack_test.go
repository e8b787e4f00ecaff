package tlsend_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
	"github.com/lanyard-mtls/lanyard/sidecar/tlsend"
)

// A ticket is worth nothing in a tunnel that asks for more than the one it is of, though both have one identity.
func TestTicketsStayInTheirTunnel(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	source := r.svids(ca.SVID(t, "spiffe://one.test/b"), ca)
	client := ca.SVID(t, "spiffe://one.test/a")
	open := tlsend.Config{Policy: rules(t, policy.Config{DisableAuthentication: true}), NoClientAuth: true}
	pinned := tlsend.Config{Policy: rules(t, policy.Config{Pins: []string{policy.PinOf(client.Certificates[0].RawSubjectPublicKeyInfo)}}), Pins: true}
	others := tlsend.Config{Policy: rules(t, policy.Config{AllowURIs: []string{"spiffe://one.test/c"}})}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, tt := range map[string]struct {
			from, to tlsend.Config
			want     string
		}{
			"no authentication, then rules": {open, others, "spiffe://one.test/a"},
			"pins, then rules":              {pinned, others, "spiffe://one.test/a"},
			"any, then rules":               {tlsend.Config{Policy: allowAll(t)}, others, "spiffe://one.test/a"},
		} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				s := r.serve(tlsend.NewServer(tt.from), source)
				c := newResumer(t, s, version, keyPair(client))
				c.mustResume()
				s.end.Store(tlsend.NewServer(tt.to))
				if rec := c.mustFail(tt.want); rec.Resumed {
					t.Error("the ticket was taken")
				}
			})
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	s := r.serve(tlsend.NewServer(tlsend.Config{Policy: allowAll(t)}), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca))
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		_, err := stock(t, s.addr, &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true,
			Certificates: []tls.Certificate{keyPair(ca.SVID(t, "spiffe://one.test/a"))}})
		if rec := s.last(t); err == nil || rec.Cause != record.HandshakeFailed {
			t.Errorf("%s: %v, %s, %v", tls.VersionName(version), err, rec.Cause, rec.Err)
		}
	}
}

// Who has a copy of a certificate, but not its key, gets nowhere with it: not with one that is wanted, and was here before, nor
// by being refused in its name.
func TestCopiedCertificates(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := newRig(t)
	victim, thief := ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/x")
	copied := tls.Certificate{Certificate: keyPair(victim).Certificate, PrivateKey: thief.PrivateKey}
	wanted := tlsend.Config{Policy: rules(t, policy.Config{AllowURIs: []string{"spiffe://one.test/a"}})}
	pinned := tlsend.Config{Policy: rules(t, policy.Config{Pins: []string{policy.PinOf(victim.Certificates[0].RawSubjectPublicKeyInfo)}}), Pins: true}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, cfg := range []tlsend.Config{wanted, pinned} {
			s := r.serve(tlsend.NewServer(cfg), r.svids(ca.SVID(t, "spiffe://one.test/b"), ca))
			config := &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true, Certificates: []tls.Certificate{keyPair(victim)}}
			if _, err := stock(t, s.addr, config); err != nil {
				t.Fatal(err) // now its chain is remembered
			}
			wantClosed(t, s.last(t))
			config.Certificates = []tls.Certificate{copied}
			_, err := stock(t, s.addr, config)
			if rec := s.last(t); err == nil || rec.Cause == record.Closed || !rec.PeerClaimed || !strings.Contains(rec.Err.Error(), "signature") {
				t.Errorf("%s: %v, %+v", tls.VersionName(version), err, rec)
			}
		}
		// And as a server: its certificate is what the client wants.
		s := r.serve(tlsend.NewClient(wanted), r.svids(thief, ca))
		accepted := make(chan error, 1)
		go func() {
			conn, err := net.Dial("tcp", s.addr)
			if err == nil {
				defer conn.Close()
				err = tls.Server(conn, &tls.Config{MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{copied}}).HandshakeContext(t.Context())
			}
			accepted <- err
		}()
		if rec := s.last(t); rec.Cause == record.Closed || !rec.PeerClaimed || !strings.Contains(rec.Err.Error(), "signature") {
			t.Errorf("%s: %+v", tls.VersionName(version), rec)
		}
		if err := <-accepted; err == nil {
			t.Errorf("%s: accepted as a server", tls.VersionName(version))
		}
	}
}
