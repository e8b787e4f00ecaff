package ca

import (
	"context"
	"errors"
	"time"
)

// Errors of what is asked of the authorities by hand. Each is wrapped by one
// whose text is SPIRE's in full: answer with err.Error() as it is.
var (
	ErrAuthorityID    = errors.New("authority ID cannot be used for that") // InvalidArgument
	ErrAuthorityState = errors.New("authority is not in the right state")  // Internal
	ErrUpstream       = errors.New("not with this upstream authority")     // FailedPrecondition
	ErrJWTDisabled    = errors.New("JWT functionality is disabled")        // Unimplemented
)

var errSkeleton = errors.New("not built yet")

// AuthorityState is what there is to say of one authority.
type AuthorityState struct {
	ID        string
	ExpiresAt time.Time
	// UpstreamSubjectKeyID is lower-case hex; empty without an upstream authority.
	UpstreamSubjectKeyID string
}

// States are the authority that signs, and the one that will, or did before.
// Active is never nil; at most one of the others is there.
type States struct {
	Active, Prepared, Old *AuthorityState
}

// X509State tells the state of the X.509 authorities. The error wraps
// [ErrNotReady] before the first one.
func (a *Authority) X509State() (States, error) { return States{}, errSkeleton }

// JWTState tells the state of the JWT authorities. The error wraps
// [ErrNotReady] before the first one, and [ErrJWTDisabled].
func (a *Authority) JWTState() (States, error) { return States{}, errSkeleton }

// PrepareX509 makes and publishes the next X.509 authority at once, in place of
// one that was prepared before or is old.
func (a *Authority) PrepareX509(context.Context) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// ActivateX509 lets the prepared X.509 authority sign from now on.
func (a *Authority) ActivateX509(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// TaintX509 marks the old X.509 authority as not to be trusted for long.
func (a *Authority) TaintX509(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// RevokeX509 takes the old, tainted X.509 authority out of the bundle.
func (a *Authority) RevokeX509(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// PrepareJWT is [Authority.PrepareX509] of JWT.
func (a *Authority) PrepareJWT(context.Context) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// ActivateJWT is [Authority.ActivateX509] of JWT.
func (a *Authority) ActivateJWT(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// TaintJWT is [Authority.TaintX509] of JWT.
func (a *Authority) TaintJWT(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// RevokeJWT takes any tainted JWT authority but the active and the prepared one
// out of the bundle.
func (a *Authority) RevokeJWT(_ context.Context, id string) (AuthorityState, error) {
	return AuthorityState{}, errSkeleton
}

// TaintX509Upstream marks a root of the upstream authority as not to be trusted
// for long. subjectKeyID is hex.
func (a *Authority) TaintX509Upstream(_ context.Context, subjectKeyID string) error {
	return errSkeleton
}

// RevokeX509Upstream takes a tainted root of the upstream authority out of the
// bundle.
func (a *Authority) RevokeX509Upstream(_ context.Context, subjectKeyID string) error {
	return errSkeleton
}
