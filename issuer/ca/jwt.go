package ca

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// JWTParams say what a JWT-SVID is to hold.
type JWTParams struct {
	// ID is of the issuer's trust domain.
	ID spiffeid.ID
	// Audience has one at least.
	Audience []string
	// TTL is cut to the life of the authority; 0 is the default.
	TTL time.Duration
	// IncludeJTI adds a random "jti" claim (RFC 7519, section 4.1.7).
	IncludeJTI bool
}

// JWTSVID is a token and when it was and ends, in whole seconds.
type JWTSVID struct {
	Token               string
	IssuedAt, ExpiresAt time.Time
}

// SignJWTSVID signs a JWT-SVID. The error wraps [ErrJWTDisabled], [ErrNotReady]
// or [ErrParams].
func (a *Authority) SignJWTSVID(_ context.Context, p JWTParams) (JWTSVID, error) {
	return JWTSVID{}, errSkeleton
}
