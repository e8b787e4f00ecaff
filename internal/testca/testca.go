// Package testca owns throwaway authorities for tests: a trust domain's CA and
// the SVIDs it signs. It is for tests only and keeps nothing on disk.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// CA is a self-signed authority of one trust domain.
type CA struct {
	TrustDomain spiffeid.TrustDomain
	Cert        *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// Option changes a certificate before it is signed.
type Option func(*x509.Certificate)

// Lifetime makes the certificate valid from notBefore to notAfter.
func Lifetime(notBefore, notAfter time.Time) Option {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = notBefore, notAfter }
}

// New makes the CA of trust domain td, valid for a day around now.
func New(t testing.TB, td string, opts ...Option) *CA {
	t.Helper()
	domain, err := spiffeid.TrustDomainFromString(td)
	check(t, err)
	ca := &CA{TrustDomain: domain, Key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"testca"}},
		URIs:                  []*url.URL{domain.ID().URL()},
		NotBefore:             time.Now().Add(-12 * time.Hour),
		NotAfter:              time.Now().Add(12 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	for _, opt := range opts {
		opt(template)
	}
	ca.Cert = sign(t, template, template, &ca.Key.PublicKey, ca.Key)
	return ca
}

// Bundle returns the trust domain's bundle, with this authority alone.
func (ca *CA) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(ca.TrustDomain, []*x509.Certificate{ca.Cert})
}

// SVID signs an X.509-SVID for id, of this trust domain or a foreign one, with
// a new key, valid for an hour.
func (ca *CA) SVID(t testing.TB, id string, opts ...Option) *x509svid.SVID {
	t.Helper()
	spiffeID, err := spiffeid.FromString(id)
	check(t, err)
	key := newKey(t)
	cert := ca.Sign(t, id, &key.PublicKey, opts...)
	return &x509svid.SVID{ID: spiffeID, Certificates: []*x509.Certificate{cert}, PrivateKey: key}
}

// Sign signs a leaf certificate for uri and public key pub.
func (ca *CA) Sign(t testing.TB, uri string, pub any, opts ...Option) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: serial(t),
		Subject:      pkix.Name{Country: []string{"US"}, Organization: []string{"testca"}},
		URIs:         []*url.URL{u},
		NotBefore:    time.Now().Add(-10 * time.Second),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}
	for _, opt := range opts {
		opt(template)
	}
	return sign(t, template, ca.Cert, pub, ca.Key)
}

func sign(t testing.TB, template, parent *x509.Certificate, pub any, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	check(t, err)
	return n.Add(n, big.NewInt(1))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
