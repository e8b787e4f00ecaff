package enroll

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

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
	// Agents joined with it, at most 100; those of join_key only.
	Agents []spiffeid.ID
}

// Tokens lists the tokens that are not over, oldest first.
func (e *Enroller) Tokens(ctx context.Context) ([]Token, error) {
	infos, err := e.cfg.Store.Tokens(ctx, e.cfg.Now())
	if err != nil {
		return nil, err
	}
	tokens := make([]Token, len(infos))
	for i, info := range infos {
		tokens[i] = token(info)
	}
	return tokens, nil
}

// RevokeToken ends a token: nobody joins with it any more. Agents that did stay.
// The error wraps [ErrTokenNotFound] where there is none of that ID.
func (e *Enroller) RevokeToken(ctx context.Context, id string) error {
	err := e.cfg.Store.RevokeToken(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return ErrTokenNotFound
	}
	return err
}

// token leaves out what cannot be read of a record: who lists tokens wants to
// see the others.
func token(info store.TokenInfo) Token {
	rec := info.Record
	t := Token{
		ID: rec.Id, Method: store.MethodOf(rec), Expires: time.Unix(rec.ExpiresAt, 0),
		Uses: int(rec.Uses), MaxUses: max(1, int(rec.MaxUses)), Group: rec.Group,
	}
	if len(rec.SpentBy) > 0 {
		t.Uses = 1
	}
	for _, text := range rec.AllowedCidrs {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			t.CIDRs = append(t.CIDRs, cidr)
		}
	}
	t.Selectors, _ = registration.SelectorsFromProto(rec.Selectors)
	t.AgentID, _ = spiffeid.FromString(rec.AgentId)
	for _, text := range info.Agents {
		if id, err := spiffeid.FromString(text); err == nil {
			t.Agents = append(t.Agents, id)
		}
	}
	return t
}
