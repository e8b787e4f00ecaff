package takeover

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// authorities puts those of each issuer into the bundle of the other.
func (m *move) authorities(ctx context.Context) error {
	theirs, err := m.from.bundle.GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return fmt.Errorf("of the issuer to take over from: %w", err)
	}
	ours, err := m.to.bundle.GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return fmt.Errorf("of this issuer: %w", err)
	}
	if theirs.TrustDomain != ours.TrustDomain {
		return cli.Hint(fmt.Errorf("the other issuer is of trust domain %q, this one of %q", theirs.TrustDomain, ours.TrustDomain),
			"take over into an issuer whose trust_domain is %q", theirs.TrustDomain)
	}
	m.report.TrustDomain, m.oldBundle = ours.TrustDomain, theirs
	if len(theirs.WitAuthorities) > 0 {
		m.report.note("the other issuer has keys for WIT-SVIDs, which this one does not issue: workloads can use those they have until they expire")
	}
	here := m.report.part("authorities into this issuer")
	there := m.report.part("authorities into the other")
	// Theirs come here first, and ours go there: had ours gone there alone, agents would go where nobody knows them.
	return errors.Join(m.appendTo(ctx, m.to.bundle, theirs, ours, here), m.appendTo(ctx, m.from.bundle, ours, theirs, there))
}

// appendTo adds what source has and target lacks.
func (m *move) appendTo(ctx context.Context, client bundlev1.BundleClient, source, target *types.Bundle, p *Part) error {
	req := &bundlev1.AppendBundleRequest{OutputMask: &types.BundleMask{SequenceNumber: true}}
	for _, a := range source.X509Authorities {
		name := certName(a.Asn1)
		switch cert, err := x509.ParseCertificate(a.Asn1); {
		case slices.ContainsFunc(target.X509Authorities, func(has *types.X509Certificate) bool { return bytes.Equal(has.Asn1, a.Asn1) }):
			p.Present++
		case err != nil:
			p.skip(name, "%v", err)
		case cert.NotAfter.Unix() < m.Now:
			p.skip(name, "expired")
		case a.Tainted:
			p.skip(name, "tainted")
		default:
			req.X509Authorities = append(req.X509Authorities, a)
		}
	}
	for _, k := range source.JwtAuthorities {
		name := "JWT key " + k.KeyId
		at := slices.IndexFunc(target.JwtAuthorities, func(has *types.JWTKey) bool { return has.KeyId == k.KeyId })
		switch {
		case at >= 0 && bytes.Equal(target.JwtAuthorities[at].PublicKey, k.PublicKey):
			p.Present++
		case at >= 0:
			p.skip(name, "another key has this ID")
		case k.ExpiresAt != 0 && k.ExpiresAt < m.Now:
			p.skip(name, "expired")
		case k.Tainted:
			p.skip(name, "tainted")
		default:
			req.JwtAuthorities = append(req.JwtAuthorities, k)
		}
	}
	n := len(req.X509Authorities) + len(req.JwtAuthorities)
	if n > 0 && !m.DryRun {
		if _, err := client.AppendBundle(ctx, req); err != nil {
			return fmt.Errorf("%s: %w", p.Kind, err)
		}
	}
	p.Taken += n
	return nil
}

// certName names an authority for people.
func certName(der []byte) string {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "X.509 authority"
	}
	return fmt.Sprintf("X.509 authority %x", cert.SubjectKeyId)
}

// message is what a failed call says.
func message(err error) *types.Status {
	s := status.Convert(err)
	return &types.Status{Code: int32(s.Code()), Message: s.Message()}
}
