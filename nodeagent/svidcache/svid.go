package svidcache

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// svid is a signed SVID and its key; immutable. It is kept encoded, once, and
// shared by all answers: parsed it would take four times the memory, and only
// Envoys and delegates want it so.
type svid struct {
	id       spiffeid.ID
	chainDER []byte // concatenated, leaf first
	keyDER   []byte // PKCS #8
	last     int    // where the chain's last certificate begins
	signer   string // the AuthorityKeyId of that; "": it has none
	rotateAt time.Time
	notAfter time.Time // of the chain: the first to end
	parsed   func() ([]*x509.Certificate, crypto.Signer)
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

// newSVID checks that chain is an SVID of id for key, valid at received. It is to
// be renewed as early as availability says.
func newSVID(id spiffeid.ID, key crypto.Signer, chain []*x509.Certificate, received time.Time, availability time.Duration) (*svid, error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	s, err := wrapSVID(id, key, keyDER, chain)
	if err != nil {
		return nil, fmt.Errorf("the issuer's answer: %w", err)
	}
	received = received.Round(0) // certificates know wall-clock time only
	notBefore := received
	if chain[0].NotBefore.After(notBefore) {
		notBefore = chain[0].NotBefore
	}
	life := s.notAfter.Sub(notBefore)
	if life <= 0 || !received.Before(s.notAfter) {
		return nil, fmt.Errorf("the SVID from the issuer expired at %s, before it came: compare the clocks", s.notAfter.UTC().Format(time.RFC3339))
	}
	s.rotateAt = notBefore.Add(rotateAfter(life, availability))
	return s, nil
}

// wrapSVID checks that chain is one of id for key.
func wrapSVID(id spiffeid.ID, key crypto.Signer, keyDER []byte, chain []*x509.Certificate) (*svid, error) {
	if len(chain) == 0 {
		return nil, errors.New("it has no certificate")
	}
	leafID, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, err
	}
	if leafID != id {
		return nil, fmt.Errorf("it is for %s instead of %s", leafID, id)
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(chain[0].PublicKey) {
		return nil, errors.New("it is for another key")
	}
	s := &svid{id: id, keyDER: bytes.Clone(keyDER), notAfter: chain[0].NotAfter}
	for _, cert := range chain {
		s.last = len(s.chainDER)
		s.signer = string(cert.AuthorityKeyId)
		s.chainDER = append(s.chainDER, cert.Raw...)
		if cert.NotAfter.Before(s.notAfter) {
			s.notAfter = cert.NotAfter
		}
	}
	s.chainDER = bytes.Clone(s.chainDER)
	s.parsed = sync.OnceValues(s.parse)
	return s, nil
}

// parse reads what was once made from what it returns.
func (s *svid) parse() ([]*x509.Certificate, crypto.Signer) {
	chain, err := x509.ParseCertificates(s.chainDER)
	key, keyErr := x509.ParsePKCS8PrivateKey(s.keyDER)
	signer, ok := key.(crypto.Signer)
	if err != nil || keyErr != nil || !ok {
		panic("svidcache: an SVID can no longer be read") // by no input: it was checked
	}
	return chain, signer
}

const (
	// leastLife keeps an authority in its last moments from being asked without
	// end.
	leastLife = 500 * time.Millisecond
	// availableLife is how much longer than the availability target an SVID lives
	// for that to count, and availableSpread spreads the renewals; SPIRE's.
	availableLife   = 12 * time.Hour
	availableSpread = 10 * time.Minute
)

// rotateAfter returns when in its life an SVID is renewed: at half of it, spread
// by up to 5 % to either side so that what was signed together is not renewed
// together, or, where there is a target, so much before its end.
func rotateAfter(life, availability time.Duration) time.Duration {
	if availability > 0 && life-availability > availableLife {
		return life - availability - time.Duration(mathrand.Int64N(int64(availableSpread)))
	}
	half := float64(life) / 2
	return max(leastLife, time.Duration(half*(0.95+0.1*mathrand.Float64())))
}

func (s *svid) expired(now time.Time) bool { return !now.Before(s.notAfter) }
