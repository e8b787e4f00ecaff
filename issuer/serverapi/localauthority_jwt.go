package serverapi

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
)

// GetJWTAuthorityState tells which JWT authorities there are.
func (s *LocalAuthorityService) GetJWTAuthorityState(context.Context, *localauthorityv1.GetJWTAuthorityStateRequest) (*localauthorityv1.GetJWTAuthorityStateResponse, error) {
	states, err := s.deps.CA.JWTState()
	if err != nil {
		return nil, authorityError(err)
	}
	return &localauthorityv1.GetJWTAuthorityStateResponse{
		Active: stateProto(states.Active), Prepared: stateProto(states.Prepared), Old: stateProto(states.Old),
	}, nil
}

// PrepareJWTAuthority makes and publishes the next JWT authority.
func (s *LocalAuthorityService) PrepareJWTAuthority(ctx context.Context, _ *localauthorityv1.PrepareJWTAuthorityRequest) (*localauthorityv1.PrepareJWTAuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.PrepareJWT(ctx))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.PrepareJWTAuthorityResponse{PreparedAuthority: state}, nil
}

// ActivateJWTAuthority lets the prepared JWT authority sign from now on.
func (s *LocalAuthorityService) ActivateJWTAuthority(ctx context.Context, req *localauthorityv1.ActivateJWTAuthorityRequest) (*localauthorityv1.ActivateJWTAuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.ActivateJWT(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.ActivateJWTAuthorityResponse{ActivatedAuthority: state}, nil
}

// TaintJWTAuthority tells everyone to replace what the old JWT authority signed.
func (s *LocalAuthorityService) TaintJWTAuthority(ctx context.Context, req *localauthorityv1.TaintJWTAuthorityRequest) (*localauthorityv1.TaintJWTAuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.TaintJWT(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.TaintJWTAuthorityResponse{TaintedAuthority: named(state)}, nil
}

// RevokeJWTAuthority takes a tainted JWT authority out of the bundle.
func (s *LocalAuthorityService) RevokeJWTAuthority(ctx context.Context, req *localauthorityv1.RevokeJWTAuthorityRequest) (*localauthorityv1.RevokeJWTAuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.RevokeJWT(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.RevokeJWTAuthorityResponse{RevokedAuthority: named(state)}, nil
}

// TaintX509UpstreamAuthority tells everyone to replace what was signed below a
// root of the upstream authority.
func (s *LocalAuthorityService) TaintX509UpstreamAuthority(ctx context.Context, req *localauthorityv1.TaintX509UpstreamAuthorityRequest) (*localauthorityv1.TaintX509UpstreamAuthorityResponse, error) {
	id := strings.ToLower(req.GetSubjectKeyId())
	annotate(ctx, slog.String("subject_key_id", clip(id)))
	if err := s.deps.CA.TaintX509Upstream(ctx, id); err != nil {
		return nil, authorityError(err)
	}
	return &localauthorityv1.TaintX509UpstreamAuthorityResponse{UpstreamAuthoritySubjectKeyId: id}, nil
}

// RevokeX509UpstreamAuthority takes a tainted root of the upstream authority out
// of the bundle.
func (s *LocalAuthorityService) RevokeX509UpstreamAuthority(ctx context.Context, req *localauthorityv1.RevokeX509UpstreamAuthorityRequest) (*localauthorityv1.RevokeX509UpstreamAuthorityResponse, error) {
	id := strings.ToLower(req.GetSubjectKeyId())
	annotate(ctx, slog.String("subject_key_id", clip(id)))
	if err := s.deps.CA.RevokeX509Upstream(ctx, id); err != nil {
		return nil, authorityError(err)
	}
	return &localauthorityv1.RevokeX509UpstreamAuthorityResponse{UpstreamAuthoritySubjectKeyId: id}, nil
}

func errWITAuthority() error {
	return statusError(codes.Unimplemented, "WIT-SVID functionality is not yet implemented", nil)
}

// GetWITAuthorityState is not implemented, as in SPIRE.
func (s *LocalAuthorityService) GetWITAuthorityState(context.Context, *localauthorityv1.GetWITAuthorityStateRequest) (*localauthorityv1.GetWITAuthorityStateResponse, error) {
	return nil, errWITAuthority()
}

// PrepareWITAuthority is not implemented, as in SPIRE.
func (s *LocalAuthorityService) PrepareWITAuthority(context.Context, *localauthorityv1.PrepareWITAuthorityRequest) (*localauthorityv1.PrepareWITAuthorityResponse, error) {
	return nil, errWITAuthority()
}

// ActivateWITAuthority is not implemented, as in SPIRE.
func (s *LocalAuthorityService) ActivateWITAuthority(context.Context, *localauthorityv1.ActivateWITAuthorityRequest) (*localauthorityv1.ActivateWITAuthorityResponse, error) {
	return nil, errWITAuthority()
}

// TaintWITAuthority is not implemented, as in SPIRE.
func (s *LocalAuthorityService) TaintWITAuthority(context.Context, *localauthorityv1.TaintWITAuthorityRequest) (*localauthorityv1.TaintWITAuthorityResponse, error) {
	return nil, errWITAuthority()
}

// RevokeWITAuthority is not implemented, as in SPIRE.
func (s *LocalAuthorityService) RevokeWITAuthority(context.Context, *localauthorityv1.RevokeWITAuthorityRequest) (*localauthorityv1.RevokeWITAuthorityResponse, error) {
	return nil, errWITAuthority()
}
