package enroll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// maxTokenTTL bounds the life of a join token.
const maxTokenTTL = 10 * 365 * 24 * time.Hour

// TokenRequest asks for a join token.
type TokenRequest struct {
	// TTL is a second at least, and 10 years at most.
	TTL time.Duration
	// Token is chosen by the caller; empty makes a random UUID.
	Token string
	// AgentID becomes a further name of the agent that joins, for entries to
	// have as parent; zero for none. It is a workload ID of the trust domain.
	AgentID spiffeid.ID
}

// CreateToken makes a join token that one agent can join with until it expires.
func (e *Enroller) CreateToken(ctx context.Context, req TokenRequest) (token string, expires time.Time, err error) {
	if req.TTL < time.Second || req.TTL > maxTokenTTL {
		return "", time.Time{}, fmt.Errorf("%w: ttl of %s: want 1s to %s", ErrBadRequest, req.TTL, maxTokenTTL)
	}
	rec := &storepb.JoinToken{}
	if !req.AgentID.IsZero() {
		if err := registration.WorkloadID(e.cfg.TrustDomain, req.AgentID); err != nil {
			return "", time.Time{}, fmt.Errorf("%w: invalid agent ID: %w", ErrBadRequest, err)
		}
		rec.AgentId = req.AgentID.String()
	}
	if req.Token == "" {
		random, err := uuid.NewRandom()
		if err != nil {
			return "", time.Time{}, err
		}
		req.Token = random.String()
	}
	if err := nodeattest.CheckJoinToken(req.Token); err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	expires = e.cfg.Now().Add(req.TTL)
	rec.ExpiresAt = expires.Unix()
	err = e.cfg.Store.CreateToken(ctx, req.Token, rec)
	if errors.Is(err, store.ErrExists) {
		return "", time.Time{}, ErrTokenExists
	}
	return req.Token, expires, err
}
