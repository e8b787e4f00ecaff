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
// issuer's records, and anyone's authorities in the bundle.
func (a *Authority) prune(ctx context.Context, now time.Time) error {
	err := a.update(ctx, func(s *store.CAState) error {
		pruneState(s, now.Add(-keepExpired))
		return nil
	})
	if err != nil {
		return fmt.Errorf("prune authorities: %w", err)
	}
	return nil
}

// pruneState drops what expired at limit or before.
func pruneState(s *store.CAState, limit time.Time) {
	over := func(unix int64) bool { return !limit.Before(time.Unix(unix, 0)) }
	s.Authorities = slices.DeleteFunc(s.Authorities, func(p *storepb.X509Authority) bool {
		return p.GetStatus() != storepb.X509Authority_ACTIVE && over(p.GetNotAfter())
	})
	s.JWTAuthorities = slices.DeleteFunc(s.JWTAuthorities, func(p *storepb.JWTAuthority) bool {
		return p.GetStatus() != storepb.X509Authority_ACTIVE && over(p.GetNotAfter())
	})
	s.Revoked = slices.DeleteFunc(s.Revoked, func(p *storepb.RevokedAuthority) bool { return over(p.GetExpiresAt()) })
	if s.Bundle != nil {
		s.Bundle.X509Authorities = pruneList(s.Bundle.X509Authorities, limit, certificateEnd)
		s.Bundle.JwtAuthorities = pruneList(s.Bundle.JwtAuthorities, limit, jwtEnd)
	}
}

// pruneList drops what ended at limit or before. It never empties the list: the
// one that ends last stays. It leaves alone what has no end.
func pruneList[A any](list []A, limit time.Time, end func(A) time.Time) []A {
	var last time.Time
	keep := -1
	var kept []A
	for i, authority := range list {
		at := end(authority)
		if at.IsZero() || limit.Before(at) {
			kept = append(kept, authority)
			continue
		}
		if keep < 0 || at.After(last) {
			keep, last = i, at
		}
	}
	if len(kept) == 0 && keep >= 0 {
		return list[keep : keep+1]
	}
	return kept
}

// certificateEnd is zero where the certificate cannot be read.
func certificateEnd(authority *types.X509Certificate) time.Time {
	cert, err := x509.ParseCertificate(authority.GetAsn1())
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}

// jwtEnd is zero where the key does not expire.
func jwtEnd(key *types.JWTKey) time.Time {
	if key.GetExpiresAt() <= 0 {
		return time.Time{}
	}
	return time.Unix(key.GetExpiresAt(), 0)
}

// pruneAt is when something in s may be forgotten; zero if there is nothing.
func pruneAt(s store.CAState) time.Time {
	var ends []time.Time
	for _, p := range s.Authorities {
		if p.GetStatus() != storepb.X509Authority_ACTIVE {
			ends = append(ends, time.Unix(p.GetNotAfter(), 0))
		}
	}
	for _, p := range s.JWTAuthorities {
		if p.GetStatus() != storepb.X509Authority_ACTIVE {
			ends = append(ends, time.Unix(p.GetNotAfter(), 0))
		}
	}
	for _, p := range s.Revoked {
		ends = append(ends, time.Unix(p.GetExpiresAt(), 0))
	}
	ends = append(ends, prunable(s.Bundle.GetX509Authorities(), certificateEnd)...)
	ends = append(ends, prunable(s.Bundle.GetJwtAuthorities(), jwtEnd)...)
	if len(ends) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(ends, time.Time.Compare).Add(keepExpired)
}

// prunable returns the ends of what pruneList would drop one day: the last one
// stays.
func prunable[A any](list []A, end func(A) time.Time) []time.Time {
	var ends []time.Time
	endless := false
	for _, authority := range list {
		if at := end(authority); at.IsZero() {
			endless = true
		} else {
			ends = append(ends, at)
		}
	}
	if endless || len(ends) == 0 {
		return ends
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[:len(ends)-1]
}
