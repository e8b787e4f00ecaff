package svidcache

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// svid is a signed SVID and its key; immutable. Keys and certificates exist once,
// encoded, and are shared by all answers.
type svid struct {
	id       spiffeid.ID
	chain    []*x509.Certificate
	key      crypto.Signer
	chainDER []byte // concatenated, leaf first
	keyDER   []byte // PKCS #8
	rotateAt time.Time
	notAfter time.Time // of the chain: the first to end
}

// newRequest makes a key and the PKCS #10 request for it. The issuer uses its
// public key alone and takes the rest from the entry.
func newRequest(keyType string) (crypto.Signer, []byte, error) {
	key, err := newKey(keyType)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
	}, key)
	return key, csr, err
}

// newSVID checks that chain is an SVID of id for key, valid at received.
func newSVID(id spiffeid.ID, key crypto.Signer, chain []*x509.Certificate, received time.Time) (*svid, error) {
	if len(chain) == 0 {
		return nil, errors.New("the issuer's answer has no certificate")
	}
	leafID, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, fmt.Errorf("the issuer's answer: %w", err)
	}
	if leafID != id {
		return nil, fmt.Errorf("the issuer signed %s instead of %s", leafID, id)
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(chain[0].PublicKey) {
		return nil, errors.New("the issuer signed another key")
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	s := &svid{id: id, chain: chain, key: key, keyDER: keyDER, notAfter: chain[0].NotAfter}
	notBefore := received.Round(0) // certificates know wall-clock time only
	for _, cert := range chain {
		s.chainDER = append(s.chainDER, cert.Raw...)
		if cert.NotAfter.Before(s.notAfter) {
			s.notAfter = cert.NotAfter
		}
	}
	if chain[0].NotBefore.After(notBefore) {
		notBefore = chain[0].NotBefore
	}
	life := s.notAfter.Sub(notBefore)
	if life <= 0 {
		return nil, fmt.Errorf("the SVID from the issuer expired at %s, before it came: compare the clocks", s.notAfter.UTC().Format(time.RFC3339))
	}
	s.rotateAt = notBefore.Add(halfLife(life))
	return s, nil
}

// leastLife keeps an authority in its last moments from being asked without end.
const leastLife = 500 * time.Millisecond

// halfLife returns half of life, spread by up to 5 % to either side so that what
// was signed together is not renewed together.
func halfLife(life time.Duration) time.Duration {
	half := float64(life) / 2
	return max(leastLife, time.Duration(half*(0.95+0.1*mathrand.Float64())))
}

func (s *svid) expired(now time.Time) bool { return !now.Before(s.notAfter) }
