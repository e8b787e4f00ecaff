package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"
)

// DownstreamParams say what the certificate of an issuer below this one is to
// hold.
type DownstreamParams struct {
	PublicKey crypto.PublicKey
	// TTL is cut to the life of the authority; 0 is that of our own authorities.
	TTL time.Duration
}

// SignDownstreamCA certifies the authority of an issuer of the same trust domain
// below this one. It returns the new certificate and what stands between it and
// the root. The error wraps [ErrParams] or [ErrNotReady].
func (a *Authority) SignDownstreamCA(ctx context.Context, p DownstreamParams) ([]*x509.Certificate, error) {
	start := time.Now()
	chain, err := a.signDownstream(ctx, p, a.cfg.Now())
	a.cfg.Signed("downstream", time.Since(start), err)
	return chain, err
}

func (a *Authority) signDownstream(ctx context.Context, p DownstreamParams, now time.Time) ([]*x509.Certificate, error) {
	if err := checkPublicKey(p.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	issuer, err := a.signer(&a.x509, now)
	if err != nil {
		return nil, err
	}
	if p.TTL <= 0 {
		p.TTL = a.cfg.TTL
	}
	subject := issuer.cert.Subject
	// As SPIRE names them: how many authorities stand above. The serial number is
	// its own, unlike SPIRE's: verifiers must tell siblings apart.
	subject.OrganizationalUnit = []string{fmt.Sprintf("DOWNSTREAM-%d", max(1, len(issuer.behind)))}
	subject.SerialNumber = ""
	template, err := caTemplate(a.cfg.TrustDomain, subject, p.PublicKey, now, p.TTL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	template.AuthorityKeyId = issuer.cert.SubjectKeyId
	if template.NotAfter.After(issuer.notAfter) {
		template.NotAfter = issuer.notAfter
	}
	if err := a.composeX509(ctx, RoleDownstream, a.cfg.TrustDomain.ID(), template); err != nil {
		return nil, err
	}
	cert, err := certify(template, issuer.cert, p.PublicKey, issuer.signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	return append([]*x509.Certificate{cert}, issuer.behind...), nil
}
