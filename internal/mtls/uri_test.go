package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// A rule compares the ID that was verified, and nothing else may look like it: whatever an issuer was talked into writing, it
// is refused or is that ID to the letter.
func TestOddURIs(t *testing.T) {
	ca := testca.New(t, "one.test")
	trust := SVIDs{Bundles: x509bundle.NewSet(ca.Bundle()), Chains: new(Chains)}
	want := spiffeid.RequireFromString("spiffe://one.test/a")
	for uri, ok := range map[string]bool{
		"spiffe://one.test/a":        true,
		"SPIFFE://one.test/a":        true, // schemes are in any case (RFC 3986, section 3.1)
		"spiffe://ONE.test/a":        false,
		"spiffe://one.test":          false,
		"spiffe://one.test/":         false,
		"spiffe://one.test/a/":       false,
		"spiffe://one.test//a":       false,
		"spiffe://one.test/b/../a":   false,
		"spiffe://one.test/./a":      false,
		"spiffe://one.test/%61":      false,
		"spiffe://one.test/a%2fb":    false,
		"spiffe://one.test/a%00":     false,
		"spiffe://user@one.test/a":   false,
		"spiffe://one.test:8443/a":   false,
		"spiffe://one.test./a":       false,
		"spiffe://[::1]/a":           false,
		"spiffe:one.test/a":          false,
		"spiffe:///a":                false,
		"spiffe://one.test/a?b":      false,
		"spiffe://one.test/a?":       false,
		"spiffe://one.test/a#b":      false,
		"spiffe://one.test/a#":       true, // an empty fragment is none to net/url
		"https://one.test/a":         false,
		"spiffe://one.test/*":        false,
		"spiffe://one.test/a;b":      false,
		"spiffe://one.test/\u0430":   false, // looks like an a
		"spiffe://one.test/a%0Ab=c":  false,
		"spiffe://one.test\\two/a":   false,
		"spiffe://one.test%2f/a":     false,
		"spiffe://one.test%25/a":     false,
		"spiffe://one.test@two.t/a":  false,
		"spiffe://two.test@one.test": false,
	} {
		certs := signed(t, ca, uri)
		if certs == nil {
			continue // crypto/x509 itself takes no such certificate
		}
		for range 2 { // the second time from memory, if at all
			id, err := trust.Verify(certs, time.Now())
			if (err == nil) != ok || ok && id != want || !ok && !id.IsZero() {
				t.Errorf("%s: %q, %v", uri, id, err)
			}
		}
	}
}

// signed is a leaf of ca with the one URI name; nil if there can be none.
func signed(t *testing.T, ca *testca.CA, uri string) []*x509.Certificate {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value}}, // subjectAltName
	}, ca.Cert, &key.PublicKey, ca.Key)
	if err != nil {
		t.Logf("%s: %v", uri, err)
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Logf("%s: %v", uri, err)
		return nil
	}
	return []*x509.Certificate{cert}
}
