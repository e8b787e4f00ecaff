package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// All of a server's connections with a peer hold one parsed certificate; without what is remembered, they hold one each.
func TestCertificatesAreHeldOnce(t *testing.T) {
	ca := testca.New(t, "one.test")
	a, b := ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/b")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, remember := range []bool{true, false} {
			var chains *mtls.Chains
			if remember {
				chains = new(mtls.Chains)
			}
			config := func(cert []byte, key any, server bool) *tls.Config {
				trust := mtls.SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: chains, Intern: server}
				return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, MaxVersion: version,
					ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, SessionTicketsDisabled: true,
					VerifyConnection: func(cs tls.ConnectionState) error {
						_, err := trust.Verify(cs.PeerCertificates, time.Now())
						return err
					}}
			}
			client, server := config(a.Certificates[0].Raw, a.PrivateKey, false), config(b.Certificates[0].Raw, b.PrivateKey, true)
			held := map[*x509.Certificate]bool{}
			for range 3 {
				near, far := net.Pipe()
				c, s := tls.Client(near, client), tls.Server(far, server)
				served := make(chan error, 1)
				go func() { served <- s.HandshakeContext(t.Context()) }()
				if err := c.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-served; err != nil {
					t.Fatal(err)
				}
				held[s.ConnectionState().PeerCertificates[0]] = true
				near.Close()
				far.Close()
			}
			if once := len(held) == 1; once != remember {
				t.Errorf("%s: %d parsed certificates for 3 connections, remembered: %v", tls.VersionName(version), len(held), remember)
			}
		}
	}
}
