package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
)

// Errors of [ParseCSR], which its own wrap.
var (
	ErrCSRMalformed = errors.New("malformed CSR")
	ErrCSRSignature = errors.New("invalid CSR signature")
)

// Bounds on what a stranger can make the issuer verify.
const (
	maxCSR     = 16 << 10 // bytes
	minRSABits = 2048
	maxRSABits = 8192 // as crypto/tls
)

// ParseCSR reads a PKCS #10 request (RFC 2986, DER), checks that its key is of
// a kind we sign for and that the signature proves possession of it. The error
// wraps [ErrCSRMalformed] or [ErrCSRSignature].
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCSRMalformed, len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSRMalformed, err)
	}
	// Before the signature: verifying with a huge key is what costs.
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSRMalformed, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSRSignature, err)
	}
	return csr, nil
}

// checkPublicKey reports why no SVID is signed for pub.
func checkPublicKey(pub crypto.PublicKey) error {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return errors.New("ECDSA key is not on P-256, P-384 or P-521")
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("RSA key has %d bits: want %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	default:
		return fmt.Errorf("unsupported key type %T: want ECDSA, RSA or Ed25519", pub)
	}
}
