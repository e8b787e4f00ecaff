package ca

import (
	"crypto"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha1" // an identifier (RFC 5280, section 4.2.1.2), not a signature
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// backdate is how long before its making a certificate becomes valid, for
// peers whose clock is behind.
const backdate = 10 * time.Second

// defaultCASubject and svidSubject are SPIRE's, which peers may match on.
func defaultCASubject() pkix.Name {
	return pkix.Name{Country: []string{"US"}, Organization: []string{"SPIFFE"}}
}

func svidSubject() pkix.Name {
	return pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}
}

// caTemplate is the certificate of an authority of td (X509-SVID, section 3.2
// and appendix A): it may sign certificates and CRLs and nothing else, and
// carries the trust domain's ID.
func caTemplate(td spiffeid.TrustDomain, subject pkix.Name, pub crypto.PublicKey, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	_, ski, err := encodeKey(pub)
	if err != nil {
		return nil, err
	}
	serial := newSerial()
	if subject.String() == "" {
		subject = defaultCASubject()
	}
	// Authorities of one trust domain share the rest of their subject; verifiers
	// that look issuers up by name must still tell them apart.
	if subject.SerialNumber == "" {
		subject.SerialNumber = serial.String()
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          ski,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, nil
}

// svidTemplate is an X.509-SVID (X509-SVID, section 4) signed by issuer; it
// ends when issuer does, at the latest.
func svidTemplate(issuer *x509.Certificate, p Params, now time.Time) (*x509.Certificate, error) {
	_, ski, err := encodeKey(p.PublicKey)
	if err != nil {
		return nil, err
	}
	return leafTemplate(issuer, p, ski, now), nil
}

func leafTemplate(issuer *x509.Certificate, p Params, ski []byte, now time.Time) *x509.Certificate {
	subject := p.Subject
	if isEmpty(subject) {
		subject = svidSubject()
	}
	// Peers that know no SPIFFE look at the common name: SPIRE fills it too.
	if len(p.DNSNames) > 0 {
		subject.CommonName = p.DNSNames[0]
	}
	notAfter := now.Add(p.TTL)
	if notAfter.After(issuer.NotAfter) {
		notAfter = issuer.NotAfter
	}
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               subject,
		URIs:                  []*url.URL{p.ID.URL()},
		DNSNames:              p.DNSNames,
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SubjectKeyId:          ski,
		AuthorityKeyId:        issuer.SubjectKeyId,
		BasicConstraintsValid: true,
	}
}

// isEmpty tells what pkix.Name.String tells, without writing it.
func isEmpty(n pkix.Name) bool {
	return len(n.Country)+len(n.Organization)+len(n.OrganizationalUnit)+len(n.Locality)+len(n.Province)+
		len(n.StreetAddress)+len(n.PostalCode)+len(n.SerialNumber)+len(n.CommonName)+len(n.Names)+len(n.ExtraNames) == 0
}

// isDefaultSubject reports whether n is svidSubject.
func isDefaultSubject(n pkix.Name) bool {
	return len(n.Country) == 1 && n.Country[0] == "US" && len(n.Organization) == 1 && n.Organization[0] == "SPIRE" &&
		len(n.OrganizationalUnit)+len(n.Locality)+len(n.Province)+len(n.StreetAddress)+len(n.PostalCode)+
			len(n.SerialNumber)+len(n.CommonName)+len(n.ExtraNames) == 0
}

// newSerial returns a random serial of 128 bits (CA/Browser Forum BR, section
// 7.1: positive, at least 64 random bits).
func newSerial() *big.Int {
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand
	serial := new(big.Int).SetBytes(random[:])
	if serial.Sign() == 0 {
		serial.SetInt64(1)
	}
	return serial
}

// encodeKey returns the SubjectPublicKeyInfo of pub and the identifier of the
// key, the hash of the public key's bits: SHA-1 (RFC 5280, section 4.2.1.2,
// method 1) or, where FIPS 140 is on, SHA-256 cut to 160 bits (RFC 7093,
// section 2, method 1).
func encodeKey(pub crypto.PublicKey) (spki, id []byte, err error) {
	if spki, err = x509.MarshalPKIXPublicKey(pub); err != nil {
		return nil, nil, err
	}
	var info, algorithm, bits cryptobyte.String
	var unused uint8
	der := cryptobyte.String(spki)
	if !der.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!info.ReadASN1(&bits, cbasn1.BIT_STRING) || !bits.ReadUint8(&unused) {
		return nil, nil, fmt.Errorf("encode public key %T", pub)
	}
	if fips140.Enabled() {
		sum := sha256.Sum256(bits)
		return spki, sum[:20], nil
	}
	sum := sha1.Sum(bits)
	return spki, sum[:], nil
}

// certify signs template for pub with the issuer's key and reads it back.
func certify(template, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// keyIDOf names an authority: its subject key identifier in hex, or that of its
// key where it has none, as authorities from elsewhere may.
func keyIDOf(cert *x509.Certificate) string {
	id := cert.SubjectKeyId
	if len(id) == 0 {
		if _, made, err := encodeKey(cert.PublicKey); err == nil {
			id = made
		}
	}
	return hex.EncodeToString(id)
}
