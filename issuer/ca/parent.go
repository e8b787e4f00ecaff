package ca

import (
	"context"
	"crypto"
	"crypto/x509"
)

// Parent certifies this issuer's authorities. It is the seam for upstream
// authorities; without one, each authority certifies itself.
type Parent interface {
	// Certify returns a certificate like template for the key, followed by the
	// intermediates up to a root, which is left out, and the roots to publish
	// in the bundle before the certificate's key signs anything.
	Certify(ctx context.Context, template *x509.Certificate, key crypto.Signer) (chain, roots []*x509.Certificate, err error)
}

type selfSigned struct{}

func (selfSigned) Certify(_ context.Context, template *x509.Certificate, key crypto.Signer) (chain, roots []*x509.Certificate, err error) {
	cert, err := certify(template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return []*x509.Certificate{cert}, []*x509.Certificate{cert}, nil
}

// presented returns what of an authority's chain goes behind the leaves that it
// signs: nothing of one that certified itself, since verifiers have it as root.
func presented(chain []*x509.Certificate) []*x509.Certificate {
	if len(chain) == 1 && chain[0].CheckSignatureFrom(chain[0]) == nil {
		return nil
	}
	return chain
}
