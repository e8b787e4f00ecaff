package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// made is a signing certificate and what makes leaves with it.
func made(t testing.TB, kt KeyType) (*x509.Certificate, crypto.Signer, *leafMaker) {
	t.Helper()
	key, err := kt.generate()
	if err != nil {
		t.Fatal(err)
	}
	template, err := caTemplate(spiffeid.RequireTrustDomainFromString("lanyard.test"), pkix.Name{}, key.Public(), epoch, DefaultTTL)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := certify(template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newLeafMaker(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if !m.fast {
		t.Fatalf("%s takes the slow way", kt)
	}
	return cert, key, m
}

// same holds what we write against what x509.CreateCertificate does of the same
// template, up to the signature.
func same(t testing.TB, m *leafMaker, issuer *x509.Certificate, signer crypto.Signer, pub crypto.PublicKey, p Params, now time.Time) {
	t.Helper()
	spki, ski, err := encodeKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	p.PublicKey = pub
	template := leafTemplate(issuer, p, ski, now)
	want, wantErr := x509.CreateCertificate(rand.Reader, template, issuer, pub, signer)
	got, err := m.certify(template, pub, spki)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%v: %v, x509.CreateCertificate: %v", p, err, wantErr)
	}
	if err != nil {
		return
	}
	theirs, err := x509.ParseCertificate(want)
	if err != nil {
		return // what it makes it cannot always read
	}
	ours, err := x509.ParseCertificate(got)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.RawTBSCertificate, theirs.RawTBSCertificate) {
		t.Errorf("%v:\n got %x\nwant %x", p, ours.RawTBSCertificate, theirs.RawTBSCertificate)
	}
	if err := ours.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
}

func TestLeavesAreThoseOfCreateCertificate(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://lanyard.test/ns/prod/sa/web")
	late := time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
	params := map[string]struct {
		p   Params
		now time.Time
	}{
		"plain":              {Params{ID: id, TTL: time.Hour}, epoch},
		"DNS names":          {Params{ID: id, TTL: time.Hour, DNSNames: []string{"a.test", "*.b.test"}}, epoch},
		"not ASCII":          {Params{ID: id, TTL: time.Hour, DNSNames: []string{"ü.test"}}, epoch},
		"subject":            {Params{ID: id, TTL: time.Hour, Subject: pkix.Name{CommonName: "Grüße", Organization: []string{"a", "b"}, SerialNumber: "1"}}, epoch},
		"unique ID":          {Params{ID: id, TTL: time.Hour, Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 45}, Value: "ff"}}}}, epoch},
		"subject of no name": {Params{ID: id, TTL: time.Hour, Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2}, Value: "x"}}}}, epoch},
		"into 2050":          {Params{ID: id, TTL: time.Hour}, late.Add(-time.Minute)},
		"in 2050":            {Params{ID: id, TTL: time.Hour}, late.Add(time.Hour)},
	}
	for _, kt := range []KeyType{KeyECP256, KeyECP384, KeyRSA2048} { // to make RSA-4096 takes seconds
		issuer, signer, m := made(t, kt)
		long := *issuer
		long.NotAfter = late.AddDate(10, 0, 0)
		for _, leafType := range []KeyType{KeyECP256, KeyECP384, KeyRSA2048} {
			leaf, err := leafType.generate()
			if err != nil {
				t.Fatal(err)
			}
			for name, tt := range params {
				t.Run(string(kt)+" signs "+string(leafType)+", "+name, func(t *testing.T) {
					same(t, m, &long, signer, leaf.Public(), tt.p, tt.now)
				})
			}
		}
	}
}

// FuzzLeaf holds the encoder to x509.CreateCertificate for names and times of
// all shapes.
func FuzzLeaf(f *testing.F) {
	issuer, signer, m := made(f, KeyECP256)
	leaf, err := KeyECP256.generate()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/web", "a.test", "cn", "org", int64(1893456000), int64(3600))
	f.Add("/a/b/c", "", "", "", int64(0), int64(1))
	f.Add("/x", "ü", "*", "\x00", int64(2524607999), int64(5))
	f.Fuzz(func(t *testing.T, path, dns, cn, org string, unix, ttl int64) {
		id, err := spiffeid.FromPath(spiffeid.RequireTrustDomainFromString("lanyard.test"), path)
		if err != nil || unix < 0 || unix > 1<<36 || ttl < 0 || ttl > 1<<30 {
			return
		}
		p := Params{ID: id, TTL: time.Duration(ttl) * time.Second, Subject: pkix.Name{CommonName: cn}}
		if org != "" {
			p.Subject.Organization = []string{org}
		}
		if dns != "" {
			p.DNSNames = []string{dns}
		}
		far := *issuer
		far.NotAfter = time.Unix(1<<37, 0)
		same(t, m, &far, signer, leaf.Public(), p, time.Unix(unix, 0))
	})
}
