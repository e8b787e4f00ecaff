package serverapi

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// LocalAuthorityService is spire.api.server.localauthority.v1.LocalAuthority:
// what is done to this issuer's own authorities by hand.
type LocalAuthorityService struct {
	localauthorityv1.UnsafeLocalAuthorityServer
	deps Deps
}

// NewLocalAuthorityService returns the service.
func NewLocalAuthorityService(d Deps) *LocalAuthorityService {
	d.setDefaults()
	return &LocalAuthorityService{deps: d}
}

// GetX509AuthorityState tells which X.509 authorities there are.
func (s *LocalAuthorityService) GetX509AuthorityState(context.Context, *localauthorityv1.GetX509AuthorityStateRequest) (*localauthorityv1.GetX509AuthorityStateResponse, error) {
	states, err := s.deps.CA.X509State()
	if err != nil {
		return nil, authorityError(err)
	}
	return &localauthorityv1.GetX509AuthorityStateResponse{
		Active: stateProto(states.Active), Prepared: stateProto(states.Prepared), Old: stateProto(states.Old),
	}, nil
}

// PrepareX509Authority makes and publishes the next X.509 authority.
func (s *LocalAuthorityService) PrepareX509Authority(ctx context.Context, _ *localauthorityv1.PrepareX509AuthorityRequest) (*localauthorityv1.PrepareX509AuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.PrepareX509(ctx))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.PrepareX509AuthorityResponse{PreparedAuthority: state}, nil
}

// ActivateX509Authority lets the prepared X.509 authority sign from now on.
func (s *LocalAuthorityService) ActivateX509Authority(ctx context.Context, req *localauthorityv1.ActivateX509AuthorityRequest) (*localauthorityv1.ActivateX509AuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.ActivateX509(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.ActivateX509AuthorityResponse{ActivatedAuthority: state}, nil
}

// TaintX509Authority tells everyone to replace what the old X.509 authority
// signed.
func (s *LocalAuthorityService) TaintX509Authority(ctx context.Context, req *localauthorityv1.TaintX509AuthorityRequest) (*localauthorityv1.TaintX509AuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.TaintX509(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.TaintX509AuthorityResponse{TaintedAuthority: state}, nil
}

// RevokeX509Authority takes the old, tainted X.509 authority out of the bundle.
func (s *LocalAuthorityService) RevokeX509Authority(ctx context.Context, req *localauthorityv1.RevokeX509AuthorityRequest) (*localauthorityv1.RevokeX509AuthorityResponse, error) {
	state, err := done(ctx)(s.deps.CA.RevokeX509(ctx, req.GetAuthorityId()))
	if err != nil {
		return nil, err
	}
	return &localauthorityv1.RevokeX509AuthorityResponse{RevokedAuthority: named(state)}, nil
}

// done words the answer of the authorities, and notes which it was about.
func done(ctx context.Context) func(ca.AuthorityState, error) (*localauthorityv1.AuthorityState, error) {
	return func(state ca.AuthorityState, err error) (*localauthorityv1.AuthorityState, error) {
		if err != nil {
			return nil, authorityError(err)
		}
		annotate(ctx, slog.String("local_authority_id", state.ID))
		return stateProto(&state), nil
	}
}

// named is the ID alone, which is what SPIRE tells of authorities that are over.
func named(state *localauthorityv1.AuthorityState) *localauthorityv1.AuthorityState {
	return &localauthorityv1.AuthorityState{AuthorityId: state.GetAuthorityId()}
}

func stateProto(state *ca.AuthorityState) *localauthorityv1.AuthorityState {
	if state == nil {
		return nil
	}
	p := &localauthorityv1.AuthorityState{AuthorityId: state.ID, UpstreamAuthoritySubjectKeyId: state.UpstreamSubjectKeyID}
	if !state.ExpiresAt.IsZero() {
		p.ExpiresAt = state.ExpiresAt.Unix()
	}
	return p
}

// authorityError is the error of a method. Package ca has its text, which is
// SPIRE's where clients may depend on it.
func authorityError(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, ca.ErrAuthorityID):
		code = codes.InvalidArgument
	case errors.Is(err, ca.ErrUpstream):
		code = codes.FailedPrecondition
	case errors.Is(err, ca.ErrJWTDisabled):
		code = codes.Unimplemented
	case errors.Is(err, ca.ErrNotReady):
		code = codes.Unavailable
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, err.Error())
}
