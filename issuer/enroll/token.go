package enroll

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Bounds of a join token.
const (
	maxTokenTTL       = 10 * 365 * 24 * time.Hour
	maxTokenCIDRs     = 100
	maxTokenSelectors = 100
	maxSelectorBytes  = 1 << 10
)

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

// CreateToken makes a join token that one agent, or MaxUses nodes, can join with
// until it expires. The error wraps [ErrBadRequest] or [ErrTokenExists].
func (e *Enroller) CreateToken(ctx context.Context, req TokenRequest) (TokenCreated, error) {
	if err := e.checkRequest(&req); err != nil {
		return TokenCreated{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if req.Token == "" {
		random, err := uuid.NewRandom()
		if err != nil {
			return TokenCreated{}, err
		}
		req.Token = random.String()
	}
	// The name is random and not made from the token: it is shown to many, and
	// a token that somebody chose may be guessable.
	name := make([]byte, 8)
	if _, err := rand.Read(name); err != nil {
		return TokenCreated{}, err
	}
	now := e.cfg.Now()
	created := TokenCreated{Token: req.Token, ID: hex.EncodeToString(name), Expires: now.Add(req.TTL)}
	rec := req.record()
	rec.Id, rec.CreatedAt, rec.ExpiresAt = created.ID, now.Unix(), created.Expires.Unix()
	err := e.cfg.Store.CreateToken(ctx, req.Token, rec)
	if errors.Is(err, store.ErrExists) {
		return TokenCreated{}, ErrTokenExists
	}
	return created, err
}

// checkRequest fills in defaults and reports the first thing that is wrong.
func (e *Enroller) checkRequest(req *TokenRequest) error {
	if req.Method == "" {
		req.Method = nodeattest.JoinToken
	}
	if req.Method == nodeattest.JoinKey && req.MaxUses == 0 {
		req.MaxUses = 1
	}
	if req.TTL < time.Second || req.TTL > maxTokenTTL {
		return fmt.Errorf("ttl of %s: want 1s to %s", req.TTL, maxTokenTTL)
	}
	if !req.AgentID.IsZero() {
		if err := registration.WorkloadID(e.cfg.TrustDomain, req.AgentID); err != nil {
			return fmt.Errorf("invalid agent ID: %w", err)
		}
	}
	if req.Token != "" {
		if err := nodeattest.CheckJoinToken(req.Token); err != nil {
			return err
		}
	}
	switch req.Method {
	case nodeattest.JoinToken:
		if req.MaxUses > 1 || len(req.CIDRs) > 0 || len(req.Selectors) > 0 || req.Group != "" {
			return fmt.Errorf("uses, CIDRs, selectors and group are for tokens of method %s: make the token for that", nodeattest.JoinKey)
		}
		return nil
	case nodeattest.JoinKey:
		return req.checkKeyToken()
	}
	return fmt.Errorf("method %q: want %s or %s", req.Method, nodeattest.JoinToken, nodeattest.JoinKey)
}

// checkKeyToken checks what only a token of join_key has.
func (req *TokenRequest) checkKeyToken() error {
	switch {
	case req.MaxUses < 1 || req.MaxUses > math.MaxInt32:
		return fmt.Errorf("%d uses: want 1 to %d", req.MaxUses, math.MaxInt32)
	case !req.AgentID.IsZero() && req.MaxUses > 1:
		return fmt.Errorf("agent ID %s with %d uses: several agents can't share an ID; give one use, or a group", req.AgentID, req.MaxUses)
	case len(req.CIDRs) > maxTokenCIDRs:
		return fmt.Errorf("%d CIDRs: at most %d", len(req.CIDRs), maxTokenCIDRs)
	case len(req.Selectors) > maxTokenSelectors:
		return fmt.Errorf("%d selectors: at most %d", len(req.Selectors), maxTokenSelectors)
	}
	for _, cidr := range req.CIDRs {
		if !cidr.IsValid() {
			return fmt.Errorf("invalid CIDR %q", cidr)
		}
	}
	for _, s := range req.Selectors {
		parsed, err := registration.ParseSelector(s.String())
		switch {
		case err != nil || parsed != s:
			return fmt.Errorf("invalid selector %q: want TYPE:VALUE", s)
		case len(s.Type)+len(s.Value) > maxSelectorBytes:
			return fmt.Errorf("selector of type %q has more than %d bytes", s.Type, maxSelectorBytes)
		case s.Type == nodeattest.JoinKey || s.Type == "spiffe_id":
			return fmt.Errorf("selector %q: the issuer itself gives those of type %s", s, s.Type)
		}
	}
	if req.Group != "" && (len(req.Group) > 255 || spiffeid.ValidatePathSegment(req.Group) != nil) {
		return fmt.Errorf("group %q: want letters, digits, '.', '_' and '-', at most 255", req.Group)
	}
	return nil
}

func (req *TokenRequest) record() *storepb.JoinToken {
	rec := &storepb.JoinToken{Group: req.Group}
	if !req.AgentID.IsZero() {
		rec.AgentId = req.AgentID.String()
	}
	if req.Method != nodeattest.JoinKey {
		return rec
	}
	rec.Method, rec.MaxUses = req.Method, int32(req.MaxUses)
	for _, cidr := range req.CIDRs {
		rec.AllowedCidrs = append(rec.AllowedCidrs, unmapped(cidr).String())
	}
	rec.Selectors = registration.SelectorsProto(registration.SortSelectors(req.Selectors))
	return rec
}

// unmapped returns cidr without host bits, and one of IPv4 in IPv6 as IPv4:
// addresses are compared so.
func unmapped(cidr netip.Prefix) netip.Prefix {
	if addr := cidr.Addr(); addr.Is4In6() && cidr.Bits() >= 96 {
		cidr = netip.PrefixFrom(addr.Unmap(), cidr.Bits()-96)
	}
	return cidr.Masked()
}
