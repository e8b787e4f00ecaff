package enroll

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	// have as parent; zero for none. It is a workload ID of the trust domain,
	// and needs MaxUses of 1.
	AgentID spiffeid.ID
	// Method is join_token, as "" is, or join_key. The rest is of join_key only.
	Method string
	// MaxUses is how many nodes may join with the token; 0 is 1.
	MaxUses int
	// CIDRs are where the nodes' connections must come from; none is anywhere.
	CIDRs []netip.Prefix
	// Selectors are given to each node that joins, of any type.
	Selectors []registration.Selector
	// Group is a path segment in the agents' SPIFFE IDs; empty for none.
	Group string
}

// TokenCreated is a new token. Token is secret and kept nowhere.
type TokenCreated struct {
	Token string
	// ID names the token to people.
	ID      string
	Expires time.Time
}

// Token is what is known of a token that is not over.
type Token struct {
	ID      string
	Method  string
	Expires time.Time
	// Uses of MaxUses are spent.
	Uses, MaxUses int
	CIDRs         []netip.Prefix
	Selectors     []registration.Selector
	Group         string
	// AgentID is zero for none.
	AgentID spiffeid.ID
	// Agents joined with it, at most 100.
	Agents []spiffeid.ID
}

// Tokens lists the tokens that are not over, oldest first.
func (e *Enroller) Tokens(ctx context.Context) ([]Token, error) {
	return nil, errors.ErrUnsupported
}

// RevokeToken ends a token: nobody joins with it any more. Agents that did stay.
// The error wraps [ErrTokenNotFound] where there is none of that ID.
func (e *Enroller) RevokeToken(ctx context.Context, id string) error {
	return errors.ErrUnsupported
}

// CreateToken makes a join token that one agent, or MaxUses nodes, can join with
// until it expires. The error wraps [ErrBadRequest] or [ErrTokenExists].
func (e *Enroller) CreateToken(ctx context.Context, req TokenRequest) (TokenCreated, error) {
	if req.TTL < time.Second || req.TTL > maxTokenTTL {
		return TokenCreated{}, fmt.Errorf("%w: ttl of %s: want 1s to %s", ErrBadRequest, req.TTL, maxTokenTTL)
	}
	rec := &storepb.JoinToken{}
	if !req.AgentID.IsZero() {
		if err := registration.WorkloadID(e.cfg.TrustDomain, req.AgentID); err != nil {
			return TokenCreated{}, fmt.Errorf("%w: invalid agent ID: %w", ErrBadRequest, err)
		}
		rec.AgentId = req.AgentID.String()
	}
	if req.Token == "" {
		random, err := uuid.NewRandom()
		if err != nil {
			return TokenCreated{}, err
		}
		req.Token = random.String()
	}
	if err := nodeattest.CheckJoinToken(req.Token); err != nil {
		return TokenCreated{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	expires := e.cfg.Now().Add(req.TTL)
	rec.ExpiresAt = expires.Unix()
	err := e.cfg.Store.CreateToken(ctx, req.Token, rec)
	if errors.Is(err, store.ErrExists) {
		return TokenCreated{}, ErrTokenExists
	}
	return TokenCreated{Token: req.Token, Expires: expires}, err
}
