package serverapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// AppendBundle adds authorities to the bundle of the issuer's own trust domain,
// but for those that it has: these stay as they are, tainted or not. The
// sequence number grows by one if any was new.
func (s *BundleService) AppendBundle(ctx context.Context, req *bundlev1.AppendBundleRequest) (*types.Bundle, error) {
	if len(req.GetJwtAuthorities()) == 0 && len(req.GetX509Authorities()) == 0 {
		return nil, statusError(codes.InvalidArgument, "no authorities to append", nil)
	}
	jwt, err := parseJWTAuthorities(req.GetJwtAuthorities())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to convert JWT authority", err)
	}
	x509, err := parseX509Authorities(req.GetX509Authorities())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to convert X.509 authority", err)
	}
	annotate(ctx, slog.Int("x509_authorities", len(x509)), slog.Int("jwt_authorities", len(jwt)))
	bundle, err := s.append(ctx, func(c *store.CAState) error {
		appendX509(c.Bundle, x509)
		return appendJWT(c.Bundle, jwt)
	})
	switch {
	case errors.Is(err, errKeyIDTaken):
		return nil, statusError(codes.InvalidArgument, "failed to append bundle", err)
	case err != nil:
		return nil, statusError(codes.Internal, "failed to append bundle", err)
	}
	return maskBundle(bundle, req.GetOutputMask()), nil
}

// append changes the own bundle and returns it as it is then, in the registry
// too.
func (s *BundleService) append(ctx context.Context, change func(*store.CAState) error) (*types.Bundle, error) {
	rev, err := s.deps.Store.UpdateCA(ctx, change)
	if err != nil {
		return nil, err
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, err
	}
	return s.deps.Registry.Bundle(), nil
}

// appendX509 adds those that are not there.
func appendX509(b *types.Bundle, authorities []*types.X509Certificate) {
	for _, a := range authorities {
		if !slices.ContainsFunc(b.X509Authorities, func(has *types.X509Certificate) bool { return bytes.Equal(has.GetAsn1(), a.GetAsn1()) }) {
			b.X509Authorities = append(b.X509Authorities, a)
		}
	}
}

// errKeyIDTaken is returned where two keys would have one ID: a verifier could
// not tell them apart.
var errKeyIDTaken = errors.New("another JWT authority has this key ID")

// appendJWT adds those that are not there.
func appendJWT(b *types.Bundle, authorities []*types.JWTKey) error {
	for _, a := range authorities {
		i := slices.IndexFunc(b.JwtAuthorities, func(has *types.JWTKey) bool { return has.GetKeyId() == a.GetKeyId() })
		switch {
		case i < 0:
			b.JwtAuthorities = append(b.JwtAuthorities, a)
		case !bytes.Equal(b.JwtAuthorities[i].GetPublicKey(), a.GetPublicKey()):
			return errKeyIDTaken
		}
	}
	return nil
}

// PublishJWTAuthority adds the key of a downstream issuer to the bundle, and
// returns all keys of it. Where this issuer is downstream itself, the key is
// published upstream first: see [Deps].
func (s *BundleService) PublishJWTAuthority(ctx context.Context, req *bundlev1.PublishJWTAuthorityRequest) (*bundlev1.PublishJWTAuthorityResponse, error) {
	if req.GetJwtAuthority() == nil {
		return nil, statusError(codes.InvalidArgument, "missing JWT authority", nil)
	}
	keys, err := parseJWTAuthorities([]*types.JWTKey{req.GetJwtAuthority()})
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "invalid JWT authority", err)
	}
	keys[0].Tainted = false // not a downstream's to say
	annotate(ctx, slog.String("authority_id", keys[0].GetKeyId()))
	publish := s.deps.PublishJWT
	if publish == nil {
		publish = s.publishJWT
	}
	all, err := publish(ctx, keys[0])
	switch {
	case errors.Is(err, errKeyIDTaken), errors.Is(err, errRevoked), errors.Is(err, ca.ErrAuthorityID):
		return nil, statusError(codes.InvalidArgument, "invalid JWT authority", err)
	case err != nil:
		return nil, statusError(codes.Internal, "failed to publish JWT key", err)
	}
	return &bundlev1.PublishJWTAuthorityResponse{JwtAuthorities: all}, nil
}

var errRevoked = errors.New("this authority was revoked here: prepare another one")

// publishJWT is publishing without an upstream. What was revoked here does not
// come back by its own issuer's doing.
func (s *BundleService) publishJWT(ctx context.Context, key *types.JWTKey) ([]*types.JWTKey, error) {
	bundle, err := s.append(ctx, func(c *store.CAState) error {
		for _, r := range c.Revoked {
			if r.GetKind() == "jwt" && r.GetAuthorityId() == key.GetKeyId() {
				return errRevoked
			}
		}
		return appendJWT(c.Bundle, []*types.JWTKey{key})
	})
	return bundle.GetJwtAuthorities(), err
}
