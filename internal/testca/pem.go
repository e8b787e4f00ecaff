package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"testing"
)

// Host makes a certificate one for host names and IP addresses, and no SVID.
func Host(names ...string) Option {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, name := range names {
			if ip := net.ParseIP(name); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, name)
			}
		}
	}
}

// Leaf signs a certificate that is no SVID unless opts make it one, with a new key, valid for an hour.
func (ca *CA) Leaf(t testing.TB, opts ...Option) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	return ca.Sign(t, "", &key.PublicKey, append([]Option{Host()}, opts...)...), key
}

// PEM is certificates as a file has them.
func PEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// KeyPEM is a private key as a file has it (PKCS #8).
func KeyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Write replaces the file at path as careful programs do: by renaming a new one.
func Write(t testing.TB, path string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(path+".new", data, 0o600))
	check(t, os.Rename(path+".new", path))
}
