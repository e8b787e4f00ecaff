package identity

import (
	"crypto/x509"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// Whatever is in a bundle's file, what comes of it has authorities, and is of the trust domain that was asked for.
func FuzzBundle(f *testing.F) {
	ca := testca.New(f, "one.test")
	jwks, err := spiffebundle.FromX509Authorities(ca.TrustDomain, []*x509.Certificate{ca.Cert}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{jwks, testca.PEM(ca.Cert), testca.PEM(ca.Cert, ca.Cert), {}, []byte(`{"keys":[]}`), []byte(" \n{")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBundle(ca.TrustDomain, data)
		if err != nil {
			return
		}
		if b.TrustDomain() != ca.TrustDomain || len(b.X509Authorities()) == 0 {
			t.Fatalf("bundle of %s with %d authorities", b.TrustDomain(), len(b.X509Authorities()))
		}
	})
}
