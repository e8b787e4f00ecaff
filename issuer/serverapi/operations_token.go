package serverapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// CreateToken makes a token for the join_key or the join_token method.
func (s *OperationsService) CreateToken(ctx context.Context, req *operationsv1.CreateTokenRequest) (*operationsv1.CreateTokenResponse, error) {
	want, err := s.tokenRequest(req)
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "cannot create token", err)
	}
	annotate(ctx, slog.String("token_method", want.Method), slog.Duration("ttl", want.TTL), slog.Int("max_uses", want.MaxUses))
	if !want.AgentID.IsZero() {
		annotate(ctx, slog.String("agent_id", want.AgentID.String()))
	}
	created, err := s.deps.Enroll.CreateToken(ctx, want)
	if err != nil {
		return nil, tokenError("failed to create token", err)
	}
	annotate(ctx, slog.String("token_id", created.ID), slog.Time("expires", created.Expires))
	return &operationsv1.CreateTokenResponse{Token: created.Token, Id: created.ID, ExpiresAt: created.Expires.Unix()}, nil
}

// Bounds on the parts of a token that are lists.
const (
	maxTokenCIDRs     = 256
	maxTokenSelectors = 256
)

func (s *OperationsService) tokenRequest(req *operationsv1.CreateTokenRequest) (enroll.TokenRequest, error) {
	want := enroll.TokenRequest{
		Method: req.GetMethod(), TTL: seconds(req.GetTtl()), Token: req.GetToken(), MaxUses: int(req.GetMaxUses()), Group: req.GetGroup(),
	}
	switch {
	case want.Method != nodeattest.JoinKey && want.Method != nodeattest.JoinToken:
		return want, fmt.Errorf("method %q: want %q or %q", clip(want.Method), nodeattest.JoinKey, nodeattest.JoinToken)
	case req.GetTtl() < 1:
		return want, fmt.Errorf("ttl of %d s: want 1 s at least", req.GetTtl())
	case want.MaxUses < 0:
		return want, fmt.Errorf("max_uses of %d: want 1 at least", want.MaxUses)
	case len(req.GetAllowedCidrs()) > maxTokenCIDRs:
		return want, fmt.Errorf("%d allowed_cidrs: at most %d", len(req.GetAllowedCidrs()), maxTokenCIDRs)
	case len(req.GetSelectors()) > maxTokenSelectors:
		return want, fmt.Errorf("%d selectors: at most %d", len(req.GetSelectors()), maxTokenSelectors)
	}
	for _, text := range req.GetAllowedCidrs() {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return want, fmt.Errorf("allowed_cidrs: %q is no CIDR, such as 10.0.0.0/8", clip(text))
		}
		want.CIDRs = append(want.CIDRs, cidr.Masked())
	}
	var err error
	if want.Selectors, err = registration.SelectorsFromProto(req.GetSelectors()); err != nil {
		return want, fmt.Errorf("selectors: %w", err)
	}
	if req.GetAgentId() != nil {
		if want.AgentID, err = registration.IDFromProto(req.GetAgentId()); err != nil {
			return want, fmt.Errorf("agent_id: %w", err)
		}
	}
	return want, nil
}

// ListTokens lists the tokens that are not over.
func (s *OperationsService) ListTokens(ctx context.Context, _ *operationsv1.ListTokensRequest) (*operationsv1.ListTokensResponse, error) {
	tokens, err := s.deps.Enroll.Tokens(ctx)
	if err != nil {
		return nil, tokenError("failed to list tokens", err)
	}
	resp := &operationsv1.ListTokensResponse{}
	for _, t := range tokens {
		p := &operationsv1.ListTokensResponse_Token{
			Id: t.ID, Method: t.Method, ExpiresAt: t.Expires.Unix(), Uses: int32(t.Uses), MaxUses: int32(t.MaxUses),
			Selectors: registration.SelectorsProto(t.Selectors), Group: t.Group,
		}
		for _, cidr := range t.CIDRs {
			p.AllowedCidrs = append(p.AllowedCidrs, cidr.String())
		}
		if !t.AgentID.IsZero() {
			p.AgentId = registration.IDProto(t.AgentID)
		}
		for _, id := range t.Agents {
			p.Agents = append(p.Agents, id.String())
		}
		resp.Tokens = append(resp.Tokens, p)
	}
	return resp, nil
}
