package x509pop

import (
	"crypto/sha1" // SPIRE's fingerprints; nothing is trusted by them
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Verify builds chains from the leaf to one of roots, as of now; any extended
// key usage will do.
func (c Chain) Verify(roots *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, cert := range c.Intermediates {
		intermediates.AddCert(cert)
	}
	chains, err := c.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate verification failed: %w", err)
	}
	return chains, nil
}

// VerifySVID verifies that the chain is an X509-SVID of bundle's trust domain
// (SPIFFE X509-SVID, section 5), and returns its ID too. That a certificate has
// a path of the right shape is not enough: authorities may be shared by trust
// domains, by way of a common upstream authority.
func (c Chain) VerifySVID(bundle *x509bundle.Bundle, now time.Time) (spiffeid.ID, [][]*x509.Certificate, error) {
	certs := append([]*x509.Certificate{c.Leaf}, c.Intermediates...)
	id, chains, err := x509svid.Verify(certs, bundle, x509svid.WithTime(now))
	if err != nil {
		return spiffeid.ID{}, nil, fmt.Errorf("certificate verification failed: %w", err)
	}
	return id, chains, nil
}

// Fingerprint is the lower-case hex of the SHA-1 of the certificate, as SPIRE's
// IDs and selectors have it.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// SerialHex is lower-case hex of an even number of digits.
func SerialHex(serial *big.Int) string {
	digits := fmt.Sprintf("%x", serial)
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	return digits
}

// URISANs returns what the leaf's URI names x509pop://TRUSTDOMAIN/KEY/VALUE say.
func URISANs(leaf *x509.Certificate, td spiffeid.TrustDomain) map[string]string {
	found := make(map[string]string)
	prefix := "x509pop://" + td.Name() + "/"
	for _, uri := range leaf.URIs {
		if !strings.HasPrefix(uri.String(), prefix) {
			continue
		}
		key, value, ok := strings.Cut(strings.Trim(uri.Path, "/"), "/")
		if ok {
			found[key] = value
		}
	}
	return found
}

// SelectorValues returns the values of the selectors, of type x509pop, that
// verified chains earn: the leaf's common name, serial number and URI names,
// and the fingerprint of each authority.
func SelectorValues(leaf *x509.Certificate, chains [][]*x509.Certificate, sans map[string]string) []string {
	var values []string
	if leaf.Subject.CommonName != "" {
		values = append(values, "subject:cn:"+leaf.Subject.CommonName)
	}
	for _, chain := range chains {
		for _, cert := range chain[1:] {
			value := "ca:fingerprint:" + Fingerprint(cert)
			if !slices.Contains(values, value) {
				values = append(values, value)
			}
		}
	}
	if leaf.SerialNumber != nil {
		values = append(values, "serialnumber:"+SerialHex(leaf.SerialNumber))
	}
	for _, key := range slices.Sorted(maps.Keys(sans)) {
		values = append(values, "san:"+key+":"+sans[key])
	}
	return values
}
