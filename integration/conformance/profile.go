package conformance

import (
	"crypto/ecdsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// leafProfile expects the shape of an SVID, but for its names and its life.
func (c *C) leafProfile(cert *x509.Certificate, id spiffeid.ID) {
	c.Helper()
	if len(cert.URIs) != 1 || cert.URIs[0].String() != id.String() {
		c.Errorf("URI SANs %v, want %s alone", cert.URIs, id)
	}
	if cert.IsCA || !cert.BasicConstraintsValid {
		c.Error("basic constraints say it is a CA, or nothing")
	}
	c.equal("key usage", cert.KeyUsage, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement)
	c.equal("extended key usage", cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth})
	c.common(cert)
}

// caProfile expects the shape of an authority.
func (c *C) caProfile(cert *x509.Certificate) {
	c.Helper()
	if len(cert.URIs) != 1 || cert.URIs[0].String() != c.td.IDString() {
		c.Errorf("URI SANs %v, want %s alone", cert.URIs, c.td)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.MaxPathLen > 0 || cert.MaxPathLenZero {
		c.Errorf("basic constraints: CA %v, path length %d", cert.IsCA, cert.MaxPathLen)
	}
	c.equal("key usage", cert.KeyUsage, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	c.equal("extended key usage", len(cert.ExtKeyUsage), 0)
	c.common(cert)
}

func (c *C) common(cert *x509.Certificate) {
	c.Helper()
	if cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 128 || cert.SerialNumber.BitLen() < 64 {
		c.Errorf("serial number %v, want a random one of 128 bits", cert.SerialNumber)
	}
	if cert.Version != 3 {
		c.Errorf("version %d", cert.Version)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok {
		point, err := key.Bytes()
		if err != nil {
			c.Errorf("public key: %v", err)
		}
		sum := sha1.Sum(point) // RFC 5280, section 4.2.1.2, method 1
		c.equal("subject key ID", cert.SubjectKeyId, sum[:])
	}
	c.equal("unhandled critical extensions", len(cert.UnhandledCriticalExtensions), 0)
}

// validity expects a life of ttl from now, and a beginning ten seconds ago.
func (c *C) validity(cert *x509.Certificate, ttl time.Duration) {
	c.Helper()
	if since := time.Since(cert.NotBefore); since < 9*time.Second || since > 25*time.Second {
		c.Errorf("valid since %s, want ten seconds", since)
	}
	if left := time.Until(cert.NotAfter); left > ttl+time.Second || left < ttl-15*time.Second {
		c.Errorf("valid for %s, want %s", left, ttl)
	}
}

// sleepUntil waits for a moment that no event tells.
func (c *C) sleepUntil(at time.Time) {
	c.Helper()
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
		c.Fatal(c.ctx.Err())
	}
}

func sha1Hex(b []byte) string {
	sum := sha1.Sum(b)
	return hex.EncodeToString(sum[:])
}

// serialHex is a serial number as selectors have it: lower case, of even length.
func serialHex(cert *x509.Certificate) string {
	text := new(big.Int).Set(cert.SerialNumber).Text(16)
	if len(text)%2 == 1 {
		text = fmt.Sprint("0", text)
	}
	return text
}
