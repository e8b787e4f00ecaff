package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// prune forgets authorities that expired more than keepExpired ago: this
// issuer's records, and anyone's certificates in the bundle.
func (a *Authority) prune(ctx context.Context, now time.Time) error {
	limit := now.Add(-keepExpired)
	_, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error {
		s.Authorities = slices.DeleteFunc(s.Authorities, func(p *storepb.X509Authority) bool {
			return p.GetStatus() != storepb.X509Authority_ACTIVE && !limit.Before(time.Unix(p.GetNotAfter(), 0))
		})
		if s.Bundle != nil {
			s.Bundle.X509Authorities = pruneBundle(s.Bundle.X509Authorities, limit)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prune authorities: %w", err)
	}
	return a.reload(ctx)
}

// pruneBundle drops the certificates that expired at limit or before. It never
// empties the bundle, and leaves alone what it cannot read.
func pruneBundle(bundle []*types.X509Certificate, limit time.Time) []*types.X509Certificate {
	kept := slices.DeleteFunc(slices.Clone(bundle), func(authority *types.X509Certificate) bool {
		cert, err := x509.ParseCertificate(authority.GetAsn1())
		return err == nil && !limit.Before(cert.NotAfter)
	})
	if len(kept) == 0 {
		return bundle
	}
	return kept
}
