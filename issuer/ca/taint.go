package ca

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// TaintX509 marks the old X.509 authority as not to be trusted for much longer:
// agents and issuers below us get rid of what it signed.
func (a *Authority) TaintX509(ctx context.Context, id string) (AuthorityState, error) {
	if a.upstream() {
		return AuthorityState{}, refuse(ErrUpstream, "local authority can't be tainted if there is an upstream authority")
	}
	return a.forceTaint(ctx, kindX509, id)
}

// TaintJWT is [Authority.TaintX509] of JWT.
func (a *Authority) TaintJWT(ctx context.Context, id string) (AuthorityState, error) {
	return a.forceTaint(ctx, kindJWT, id)
}

func (a *Authority) forceTaint(ctx context.Context, k kind, id string) (AuthorityState, error) {
	return a.force(ctx, k, func(_ time.Time, _ *lane, active, next *record) (string, error) {
		switch {
		case id == "":
			return "", refuse(ErrAuthorityID, "no authority ID provided")
		case id == active.id:
			return "", refuse(ErrAuthorityID, "unable to taint current local authority")
		case next == nil || id != next.id:
			return "", refuse(ErrAuthorityID, "unexpected authority ID")
		case next.status != storepb.X509Authority_OLD:
			return "", refuse(ErrAuthorityID, "only Old local authorities can be tainted: unsupported local authority status: %v", next.status)
		}
		if err := a.taint(ctx, k, id); err != nil {
			return "", prefixed(err, "failed to taint %s authority", k.text())
		}
		a.cfg.Log.Warn("authority tainted", "kind", k, "authority", id)
		return id, nil
	})
}

// RevokeX509 takes the old, tainted X.509 authority out of the bundle, for good.
func (a *Authority) RevokeX509(ctx context.Context, id string) (AuthorityState, error) {
	if a.upstream() {
		return AuthorityState{}, refuse(ErrUpstream, "local authority can't be revoked if there is an upstream authority")
	}
	return a.forceRevoke(ctx, kindX509, id, func(active, next *record) error {
		switch {
		case id == "":
			return refuse(ErrAuthorityID, "invalid authority ID: no authority ID provided")
		case id == active.id:
			return refuse(ErrAuthorityID, "invalid authority ID: unable to use current authority")
		case next == nil || id != next.id || next.status != storepb.X509Authority_OLD:
			return refuse(ErrAuthorityID, "invalid authority ID: only Old local authority can be revoked")
		}
		return nil
	})
}

// RevokeJWT takes any tainted JWT authority but the active and the prepared one
// out of the bundle, for good.
func (a *Authority) RevokeJWT(ctx context.Context, id string) (AuthorityState, error) {
	return a.forceRevoke(ctx, kindJWT, id, func(active, next *record) error {
		switch {
		case id == "":
			return refuse(ErrAuthorityID, "invalid authority ID: no authority ID provided")
		case next != nil && id == next.id && next.status == storepb.X509Authority_PREPARED:
			return refuse(ErrAuthorityID, "invalid authority ID: unable to use a prepared key")
		case next != nil && id == next.id:
			return nil
		case id == active.id:
			return refuse(ErrAuthorityID, "invalid authority ID: unable to use current authority")
		case findJWT(a.view.Load().bundle, id) == nil:
			return refuse(ErrAuthorityID, "invalid authority ID: no JWT authority found with provided authority ID")
		}
		return nil
	})
}

func (a *Authority) forceRevoke(ctx context.Context, k kind, id string, check func(active, next *record) error) (AuthorityState, error) {
	return a.force(ctx, k, func(_ time.Time, _ *lane, active, next *record) (string, error) {
		if err := check(active, next); err != nil {
			return "", err
		}
		if err := a.revoke(ctx, k, id); err != nil {
			return "", prefixed(err, "failed to revoke %s authority", k.text())
		}
		a.cfg.Log.Warn("authority revoked", "kind", k, "authority", id)
		return id, nil
	})
}

// TaintX509Upstream marks the root of the upstream authority that our old
// authority is below. subjectKeyID is hex.
func (a *Authority) TaintX509Upstream(ctx context.Context, subjectKeyID string) error {
	return a.forceUpstream(ctx, subjectKeyID, "provided subject key id is not valid", func(id string) error {
		if err := a.taint(ctx, kindX509, id); err != nil {
			return prefixed(err, "failed to taint upstream authority")
		}
		a.cfg.Log.Warn("upstream authority tainted", "upstream_authority", id)
		return nil
	})
}

// RevokeX509Upstream takes that root, once it is tainted, out of the bundle for
// good: it stays out though the upstream authority still has it.
func (a *Authority) RevokeX509Upstream(ctx context.Context, subjectKeyID string) error {
	return a.forceUpstream(ctx, subjectKeyID, "invalid subject key ID", func(id string) error {
		if err := a.revoke(ctx, kindX509, id); err != nil {
			return prefixed(err, "failed to revoke X.509 upstream authority")
		}
		a.cfg.Log.Warn("upstream authority revoked", "upstream_authority", id)
		return nil
	})
}

func (a *Authority) forceUpstream(ctx context.Context, subjectKeyID, invalid string, do func(id string) error) error {
	if !a.upstream() {
		return refuse(ErrUpstream, "upstream authority is not configured")
	}
	_, err := a.force(ctx, kindX509, func(_ time.Time, _ *lane, active, next *record) (string, error) {
		id := strings.ToLower(subjectKeyID)
		switch {
		case id == "":
			return "", refuse(ErrAuthorityID, "%s: no subject key ID provided", invalid)
		case id == active.upstream:
			// "singing": the text is SPIRE's.
			return "", refuse(ErrAuthorityID, "%s: unable to use upstream authority singing current authority", invalid)
		case next == nil || id != next.upstream:
			return "", refuse(ErrAuthorityID, "%s: upstream authority didn't sign the old local authority", invalid)
		case next.status == storepb.X509Authority_PREPARED:
			return "", refuse(ErrAuthorityID, "%s: only upstream authorities signing an old authority can be used", invalid)
		}
		return id, do(id)
	})
	return err
}

// prefixed keeps the kind of err.
func prefixed(err error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// taint sets the flag of an authority in the bundle; texts are those of SPIRE's
// datastore.
func (a *Authority) taint(ctx context.Context, k kind, id string) error {
	return a.update(ctx, func(s *store.CAState) error {
		if k == kindJWT {
			key := findJWT(s.Bundle, id)
			switch {
			case key == nil:
				return refuse(ErrAuthorityState, "no JWT Key found with provided key ID")
			case key.Tainted:
				return refuse(ErrAuthorityState, "key is already tainted")
			}
			key.Tainted = true
			return nil
		}
		found := withKeyID(s.Bundle, id)
		if len(found) == 0 {
			return refuse(ErrAuthorityState, "no ca found with provided subject key ID")
		}
		for _, authority := range found {
			if authority.Tainted {
				return refuse(ErrAuthorityState, "root CA is already tainted")
			}
			authority.Tainted = true
		}
		return nil
	})
}

// revoke takes a tainted authority out of the bundle and remembers it until it
// has expired, for an upstream authority or an issuer below may still have it.
func (a *Authority) revoke(ctx context.Context, k kind, id string) error {
	return a.update(ctx, func(s *store.CAState) error {
		ends, err := takeOut(s.Bundle, k, id)
		if err != nil {
			return err
		}
		if ends.IsZero() {
			ends = a.cfg.Now().AddDate(10, 0, 0) // a JWT key without end
		}
		if !isRevoked(s.Revoked, k, id) {
			s.Revoked = append(s.Revoked, &storepb.RevokedAuthority{Kind: k.String(), AuthorityId: id, ExpiresAt: ends.Unix()})
		}
		return nil
	})
}

// takeOut removes the tainted authority from the bundle and returns when it ends.
func takeOut(bundle *types.Bundle, k kind, id string) (ends time.Time, err error) {
	if k == kindJWT {
		key := findJWT(bundle, id)
		switch {
		case key == nil:
			return ends, refuse(ErrAuthorityState, "no JWT Key found with provided key ID")
		case !key.Tainted:
			return ends, refuse(ErrAuthorityState, "it is not possible to revoke an untainted key")
		}
		bundle.JwtAuthorities = slices.DeleteFunc(bundle.JwtAuthorities, func(k *types.JWTKey) bool { return k == key })
		return jwtEnd(key), nil
	}
	found := withKeyID(bundle, id)
	if len(found) == 0 {
		return ends, refuse(ErrAuthorityState, "no root CA found with provided subject key ID")
	}
	for _, authority := range found {
		if !authority.Tainted {
			return ends, refuse(ErrAuthorityState, "it is not possible to revoke an untainted root CA")
		}
		if end := certificateEnd(authority); end.After(ends) {
			ends = end
		}
	}
	bundle.X509Authorities = slices.DeleteFunc(bundle.X509Authorities, func(c *types.X509Certificate) bool { return slices.Contains(found, c) })
	return ends, nil
}

// withKeyID returns the authorities of the bundle with that key identifier.
func withKeyID(bundle *types.Bundle, id string) []*types.X509Certificate {
	var found []*types.X509Certificate
	for _, authority := range bundle.GetX509Authorities() {
		if nameOf(authority) == id {
			found = append(found, authority)
		}
	}
	return found
}
