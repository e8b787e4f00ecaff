package mtls_test

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// BenchmarkHandshake is what both ends of a new connection cost together: with every chain verified, with what is remembered
// of it, with resumption, and with both.
func BenchmarkHandshake(b *testing.B) {
	ca := testca.New(b, "one.test")
	a, z := ca.SVID(b, "spiffe://one.test/a"), ca.SVID(b, "spiffe://one.test/z")
	for _, bb := range []struct {
		name             string
		remember, resume bool
	}{{"full", false, false}, {"remembered", true, false}, {"resumed", false, true}, {"resumed and remembered", true, true}} {
		b.Run(bb.name, func(b *testing.B) {
			config := func(svid *x509svid.SVID) *tls.Config {
				trust := mtls.SVIDs{Bundles: x509bundle.NewSet(ca.Bundle())}
				if bb.remember {
					trust.Chains = new(mtls.Chains)
				}
				return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}},
					ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, ServerName: "z", CurvePreferences: []tls.CurveID{tls.X25519},
					VerifyConnection: func(cs tls.ConnectionState) error {
						_, err := trust.Verify(cs.PeerCertificates, time.Now())
						return err
					}}
			}
			server, client := config(z), config(a)
			var key [32]byte
			rand.Read(key[:])
			server.SetSessionTicketKeys([][32]byte{key})
			if bb.resume {
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					c := tls.Server(conn, server)
					c.Write([]byte("y"))
					io.Copy(io.Discard, c)
					c.Close()
				}
			}()
			defer func() {
				l.Close()
				<-done
			}()
			b.ReportAllocs()
			for b.Loop() {
				conn, err := tls.Dial("tcp", l.Addr().String(), client)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}
