package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// leafMaker makes the certificates of one authority. It writes them itself: what
// is the same in all of them is encoded once, and a signature of Go's own keys is
// not verified again, which is half of what x509.CreateCertificate costs. Tests
// hold it to x509.CreateCertificate byte by byte. It is immutable.
type leafMaker struct {
	issuer *x509.Certificate
	signer crypto.Signer
	// fast: signer is one whose signatures need no check, of a known algorithm.
	fast      bool
	hash      crypto.Hash
	algorithm []byte // AlgorithmIdentifier of the signature
	fixed     []byte // the extensions that all leaves share, before SKI
	authority []byte // the authority key identifier extension
	subject   []byte // the default subject
}

func newLeafMaker(issuer *x509.Certificate, signer crypto.Signer) (*leafMaker, error) {
	m := &leafMaker{issuer: issuer, signer: signer}
	oid := asn1.ObjectIdentifier{}
	params := false
	switch key := signer.(type) {
	case *ecdsa.PrivateKey:
		switch key.Curve {
		case elliptic.P256():
			m.hash, oid = crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
		case elliptic.P384():
			m.hash, oid = crypto.SHA384, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
		default:
			return m, nil
		}
	case *rsa.PrivateKey:
		m.hash, oid, params = crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, true
	default:
		return m, nil
	}
	m.fast = true
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if params {
			b.AddASN1NULL()
		}
	})
	var err error
	if m.algorithm, err = b.Bytes(); err != nil {
		return nil, err
	}
	if m.fixed, m.authority, err = fixedExtensions(issuer.SubjectKeyId); err != nil {
		return nil, err
	}
	m.subject, err = asn1.Marshal(svidSubject().ToRDNSequence())
	return m, err
}

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// fixedExtensions are those of svidTemplate that don't depend on the leaf.
func fixedExtensions(authorityKeyID []byte) (fixed, authority []byte, err error) {
	var b, aki cryptobyte.Builder
	addExtension(&b, oidKeyUsage, true, func(b *cryptobyte.Builder) {
		// digitalSignature (0), keyEncipherment (2), keyAgreement (4); 3 bits unused
		b.AddBytes([]byte{byte(cbasn1.BIT_STRING), 2, 3, 0b1010_1000})
	})
	addExtension(&b, oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidServerAuth)
			b.AddASN1ObjectIdentifier(oidClientAuth)
		})
	})
	addExtension(&b, oidBasicConstraints, true, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {})
	})
	if len(authorityKeyID) > 0 {
		addExtension(&aki, oidAuthorityKeyID, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(authorityKeyID) })
			})
		})
	}
	if fixed, err = b.Bytes(); err != nil {
		return nil, nil, err
	}
	authority, err = aki.Bytes()
	return fixed, authority, err
}

// certify returns a certificate like template, which svidTemplate made, for the
// key with that SubjectPublicKeyInfo.
func (m *leafMaker) certify(template *x509.Certificate, pub crypto.PublicKey, spki []byte) ([]byte, error) {
	if !m.fast || len(template.ExtraExtensions) > 0 {
		return x509.CreateCertificate(rand.Reader, template, m.issuer, pub, m.signer)
	}
	tbs, err := m.tbs(template, spki)
	if err != nil {
		return nil, err
	}
	h := m.hash.New()
	h.Write(tbs)
	signature, err := m.signer.Sign(rand.Reader, h.Sum(nil), m.hash)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(m.algorithm)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// tbs is the TBSCertificate (RFC 5280, section 4.1).
func (m *leafMaker) tbs(t *x509.Certificate, spki []byte) ([]byte, error) {
	subject := m.subject
	if !isDefaultSubject(t.Subject) {
		var err error
		if subject, err = asn1.Marshal(t.Subject.ToRDNSequence()); err != nil {
			return nil, err
		}
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(t.SerialNumber)
		b.AddBytes(m.algorithm)
		b.AddBytes(m.issuer.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.NotBefore)
			addTime(b, t.NotAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { m.extensions(b, t, len(subject) == 2) })
		})
	})
	return b.Bytes()
}

func (m *leafMaker) extensions(b *cryptobyte.Builder, t *x509.Certificate, noSubject bool) {
	b.AddBytes(m.fixed)
	addExtension(b, oidSubjectKeyID, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(t.SubjectKeyId) })
	b.AddBytes(m.authority)
	addExtension(b, oidSubjectAltName, noSubject, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, name := range t.DNSNames {
				addIA5(b, 2, name)
			}
			for _, uri := range t.URIs {
				addIA5(b, 6, uri.String())
			}
		})
	})
}

func addIA5(b *cryptobyte.Builder, tag uint8, s string) {
	for i := range len(s) {
		if s[i] > 0x7f {
			b.SetError(fmt.Errorf("%q is not ASCII", s))
			return
		}
	}
	b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

// addTime follows RFC 5280, section 4.1.2.5: UTCTime through 2049.
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC()
	switch year := t.Year(); {
	case year >= 1950 && year < 2050:
		b.AddASN1UTCTime(t)
	case year >= 0 && year <= 9999:
		b.AddASN1GeneralizedTime(t)
	default:
		b.SetError(errors.New("time out of range: " + t.Format(time.RFC3339)))
	}
}
