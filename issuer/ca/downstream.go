package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"time"
)

// DownstreamParams say what the certificate of an issuer below this one is to
// hold.
type DownstreamParams struct {
	PublicKey crypto.PublicKey
	// TTL is cut to the life of the authority; 0 is that of our own authorities.
	TTL time.Duration
}

// SignDownstreamCA certifies the authority of an issuer below this one. It
// returns the new certificate and what stands between it and the root.
func (a *Authority) SignDownstreamCA(_ context.Context, p DownstreamParams) ([]*x509.Certificate, error) {
	return nil, errSkeleton
}
