package serverapi

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// parseBundle reads a bundle of a trust domain from a request, and checks every
// authority in it. What is not part of a bundle is left out.
func parseBundle(b *types.Bundle) (*types.Bundle, error) {
	if b == nil {
		return nil, errors.New("no bundle provided")
	}
	td, err := spiffeid.TrustDomainFromString(b.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("invalid trust domain: %w", err)
	}
	x509, err := parseX509Authorities(b.GetX509Authorities())
	if err != nil {
		return nil, fmt.Errorf("unable to parse X.509 authority: %w", err)
	}
	jwt, err := parseJWTAuthorities(b.GetJwtAuthorities())
	if err != nil {
		return nil, fmt.Errorf("unable to parse JWT authority: %w", err)
	}
	return &types.Bundle{
		TrustDomain:     td.Name(),
		X509Authorities: x509,
		JwtAuthorities:  jwt,
		RefreshHint:     b.GetRefreshHint(),
		SequenceNumber:  b.GetSequenceNumber(),
	}, nil
}

// parseX509Authorities returns each certificate once, one to an authority: a
// client may send several in a row.
func parseX509Authorities(authorities []*types.X509Certificate) ([]*types.X509Certificate, error) {
	b := &types.Bundle{}
	for _, a := range authorities {
		certs, err := x509.ParseCertificates(a.GetAsn1())
		if err != nil {
			return nil, err
		}
		if len(certs) == 0 {
			return nil, errors.New("the certificate is empty")
		}
		for _, cert := range certs {
			appendX509(b, []*types.X509Certificate{{Asn1: cert.Raw, Tainted: a.GetTainted()}})
		}
	}
	return b.X509Authorities, nil
}

// parseJWTAuthorities returns each key once.
func parseJWTAuthorities(authorities []*types.JWTKey) ([]*types.JWTKey, error) {
	b := &types.Bundle{}
	for _, a := range authorities {
		if _, err := x509.ParsePKIXPublicKey(a.GetPublicKey()); err != nil {
			return nil, err
		}
		if a.GetKeyId() == "" {
			return nil, errors.New("missing key ID")
		}
		key := &types.JWTKey{PublicKey: a.GetPublicKey(), KeyId: a.GetKeyId(), ExpiresAt: a.GetExpiresAt(), Tainted: a.GetTainted()}
		if err := appendJWT(b, []*types.JWTKey{key}); err != nil {
			return nil, fmt.Errorf("key ID %.64q: %w", a.GetKeyId(), err)
		}
	}
	return b.JwtAuthorities, nil
}
