// Package x509pop owns both halves of SPIRE's x509pop attestation: a node shows
// a certificate chain and proves, by a signature over two nonces, that it holds
// the key of the leaf. The messages are SPIRE's, byte for byte. The package is
// pure: it reads no file, and which authorities count is its caller's choice.
package x509pop

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
)

// Limits bound, before anything is computed with it, what a stranger may send.
type Limits struct {
	// Intermediates is how many certificates may come after the leaf.
	Intermediates int
	// RSABits is the longest RSA key of any certificate of the chain.
	RSABits int
}

// DefaultLimits are SPIRE's.
func DefaultLimits() Limits { return Limits{Intermediates: 4, RSABits: 8192} }

const (
	// maxCertificate bounds one certificate, in bytes.
	maxCertificate = 64 << 10
	// maxResponse bounds a challenge or a response: an RSA signature in base64.
	maxResponse = 16 << 10
)

type payloadJSON struct {
	// Certificates are in DER, leaf first.
	Certificates [][]byte `json:"certificates"`
}

// NewPayload returns the message that shows chain, DER certificates, leaf first.
func NewPayload(chain [][]byte) ([]byte, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate to show")
	}
	return json.Marshal(payloadJSON{Certificates: chain})
}

// Chain is what a payload shows; nothing of it is verified.
type Chain struct {
	Leaf          *x509.Certificate
	Intermediates []*x509.Certificate
}

// ParsePayload reads what [NewPayload] returned at the other end. How many
// certificates there are is looked at before any is parsed, and how long their
// keys are before anything is computed with one.
func ParsePayload(payload []byte, limits Limits) (Chain, error) {
	// Base64 has 4 characters for 3 bytes.
	if most := (limits.Intermediates + 1) * (maxCertificate + maxCertificate/2); len(payload) > most {
		return Chain{}, fmt.Errorf("attestation data has %d bytes, at most %d", len(payload), most)
	}
	var data payloadJSON
	if err := json.Unmarshal(payload, &data); err != nil {
		return Chain{}, fmt.Errorf("failed to unmarshal data: %w", err)
	}
	if len(data.Certificates) == 0 {
		return Chain{}, errors.New("no certificate to attest")
	}
	if len(data.Certificates)-1 > limits.Intermediates {
		return Chain{}, fmt.Errorf("too many intermediate certificates: %d, at most %d (max_intermediates)", len(data.Certificates)-1, limits.Intermediates)
	}
	var chain Chain
	for i, der := range data.Certificates {
		name := "leaf certificate"
		if i > 0 {
			name = fmt.Sprintf("intermediate certificate %d", i-1)
		}
		cert, err := parse(der, limits)
		switch {
		case err != nil:
			return Chain{}, fmt.Errorf("%s: %w", name, err)
		case i == 0:
			chain.Leaf = cert
		default:
			chain.Intermediates = append(chain.Intermediates, cert)
		}
	}
	return chain, nil
}

func parse(der []byte, limits Limits) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%d bytes, at most %d", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("unable to parse: %w", err)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > limits.RSABits {
		return nil, fmt.Errorf("key size too large: RSA key of %d bits, at most %d (max_rsa_key_size)", key.N.BitLen(), limits.RSABits)
	}
	return cert, nil
}
