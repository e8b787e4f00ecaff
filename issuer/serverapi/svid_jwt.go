package serverapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// Bounds on what a token is made to carry: it travels in HTTP headers.
const (
	maxAudiences     = 100
	maxAudienceBytes = 4 << 10
)

// NewJWTSVID signs a JWT-SVID for an entry of the calling agent, or for an
// instance of a template, as [SVIDService.BatchNewX509SVID] does.
func (s *SVIDService) NewJWTSVID(ctx context.Context, req *svidv1.NewJWTSVIDRequest) (*svidv1.NewJWTSVIDResponse, error) {
	if err := jwtEnabled(s.deps.CA); err != nil {
		return nil, err
	}
	annotate(ctx, slog.String("entry", clip(req.GetEntryId())))
	entry, ok := s.deps.Registry.AuthorizedEntry(CallerFrom(ctx).ID, req.GetEntryId())
	if !ok {
		return nil, statusError(codes.NotFound, "entry not found or not authorized", nil)
	}
	svid, err := s.signJWT(ctx, ca.JWTParams{
		ID: entry.SPIFFEID, Audience: req.GetAudience(), TTL: entry.JWTSVIDTTL, IncludeJTI: entry.JWTSVIDIncludeJTI,
	})
	if err != nil {
		return nil, err
	}
	return &svidv1.NewJWTSVIDResponse{Svid: svid}, nil
}

// MintJWTSVID signs a JWT-SVID for an administrator, with no entry.
func (s *SVIDService) MintJWTSVID(ctx context.Context, req *svidv1.MintJWTSVIDRequest) (*svidv1.MintJWTSVIDResponse, error) {
	if err := jwtEnabled(s.deps.CA); err != nil {
		return nil, err
	}
	id, err := registration.IDFromProto(req.GetId())
	if err == nil {
		err = registration.WorkloadID(s.deps.TrustDomain, id)
	}
	switch {
	case err != nil:
		return nil, statusError(codes.InvalidArgument, "invalid SPIFFE ID", err)
	case req.GetTtl() < 0:
		return nil, statusError(codes.InvalidArgument, "ttl must not be negative", nil)
	}
	svid, err := s.signJWT(ctx, ca.JWTParams{ID: id, Audience: req.GetAudience(), TTL: time.Duration(req.GetTtl()) * time.Second})
	if err != nil {
		return nil, err
	}
	return &svidv1.MintJWTSVIDResponse{Svid: svid}, nil
}

func (s *SVIDService) signJWT(ctx context.Context, p ca.JWTParams) (*types.JWTSVID, error) {
	size := 0
	for _, audience := range p.Audience {
		size += len(audience)
	}
	switch {
	case len(p.Audience) == 0:
		return nil, statusError(codes.InvalidArgument, "at least one audience is required", nil)
	case len(p.Audience) > maxAudiences || size > maxAudienceBytes:
		return nil, status.Errorf(codes.InvalidArgument, "%d audiences of %d bytes in all: at most %d of %d bytes", len(p.Audience), size, maxAudiences, maxAudienceBytes)
	}
	annotate(ctx, slog.String("spiffe_id", p.ID.String()), slog.Any("audience", p.Audience))
	svid, err := s.deps.CA.SignJWTSVID(ctx, p)
	if err != nil {
		return nil, signError("failed to sign JWT-SVID", err)
	}
	annotate(ctx, slog.Time("expires", svid.ExpiresAt))
	return &types.JWTSVID{
		Token: svid.Token, Id: registration.IDProto(p.ID),
		IssuedAt: svid.IssuedAt.Unix(), ExpiresAt: svid.ExpiresAt.Unix(),
	}, nil
}

// jwtEnabled returns the answer of methods about JWT-SVIDs where there are none.
func jwtEnabled(authority *ca.Authority) error {
	if _, err := authority.JWTState(); errors.Is(err, ca.ErrJWTDisabled) {
		return status.Error(codes.Unimplemented, ca.ErrJWTDisabled.Error())
	}
	return nil
}

// signCode is the code of what the authorities answer.
func signCode(err error) codes.Code {
	switch {
	case errors.Is(err, ca.ErrJWTDisabled):
		return codes.Unimplemented
	case errors.Is(err, ca.ErrNotReady):
		return codes.Unavailable
	}
	return codes.Internal
}

// signError is the error of a call that signs.
func signError(msg string, err error) error { return statusError(signCode(err), msg, err) }

// errWIT is what SPIRE answers unless its feature flag is set.
func errWIT() error { return status.Error(codes.Unimplemented, "WIT functionality is disabled") }

// MintWITSVID is not implemented.
func (s *SVIDService) MintWITSVID(context.Context, *svidv1.MintWITSVIDRequest) (*svidv1.MintWITSVIDResponse, error) {
	return nil, errWIT()
}

// BatchNewWITSVID is not implemented.
func (s *SVIDService) BatchNewWITSVID(context.Context, *svidv1.BatchNewWITSVIDRequest) (*svidv1.BatchNewWITSVIDResponse, error) {
	return nil, errWIT()
}

// unimplemented is the answer of methods that this issuer does not have.
func unimplemented(what string) error {
	return statusError(codes.Unimplemented, what+" is not implemented", nil)
}
