package serverapi

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// CreateJoinToken makes a token that one agent can join with.
func (s *AgentService) CreateJoinToken(ctx context.Context, req *agentv1.CreateJoinTokenRequest) (*types.JoinToken, error) {
	if req.GetTtl() < 1 {
		return nil, statusError(codes.InvalidArgument, "ttl is required, you must provide one", nil)
	}
	want := enroll.TokenRequest{TTL: time.Duration(req.GetTtl()) * time.Second, Token: req.GetToken()}
	if req.GetAgentId() != nil {
		id, err := registration.IDFromProto(req.GetAgentId())
		if err == nil {
			err = registration.WorkloadID(s.deps.TrustDomain, id)
		}
		if err != nil {
			return nil, statusError(codes.InvalidArgument, "invalid agent ID", err)
		}
		want.AgentID = id
		annotate(ctx, slog.String("agent_id", id.String()))
	}
	annotate(ctx, slog.Duration("ttl", want.TTL))
	created, err := s.deps.Enroll.CreateToken(ctx, want)
	if err != nil {
		return nil, tokenError("failed to create token", err)
	}
	annotate(ctx, slog.String("token_id", created.ID), slog.Time("expires", created.Expires))
	return &types.JoinToken{Value: created.Token, ExpiresAt: created.Expires.Unix()}, nil
}

// tokenError is the error of what is done with tokens.
func tokenError(msg string, err error) error {
	switch {
	case errors.Is(err, enroll.ErrBadRequest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, enroll.ErrTokenExists):
		return statusError(codes.AlreadyExists, msg, err)
	case errors.Is(err, enroll.ErrTokenNotFound):
		return status.Error(codes.NotFound, err.Error())
	}
	return statusError(codes.Internal, msg, err)
}

// RenewAgent signs a new SVID for the calling agent. The one it calls with
// stays in use until the agent first calls with the new one.
func (s *AgentService) RenewAgent(ctx context.Context, req *agentv1.RenewAgentRequest) (*agentv1.RenewAgentResponse, error) {
	caller := CallerFrom(ctx)
	switch {
	case req.GetParams() == nil:
		return nil, statusError(codes.InvalidArgument, "params cannot be nil", nil)
	case len(req.GetParams().GetCsr()) == 0:
		return nil, statusError(codes.InvalidArgument, "missing CSR", nil)
	}
	csr, err := ca.ParseCSR(req.GetParams().GetCsr())
	if err != nil {
		return nil, agentCSRError(err)
	}
	chain, err := s.deps.CA.SignAgentSVID(ctx, caller.ID, csr.PublicKey)
	if err != nil {
		return nil, signError("failed to sign X509 SVID", err)
	}
	var refused error
	_, rev, err := s.deps.Store.UpdateAgent(ctx, caller.ID, func(a *storepb.Agent) error {
		if refused = mayRenew(a, caller); refused != nil {
			return refused
		}
		a.NewSerial, a.NewNotAfter = chain[0].SerialNumber.String(), chain[0].NotAfter.Unix()
		return nil
	})
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, agentError("failed to update agent", err)
	}
	annotate(ctx, svidAttrs(caller.ID, chain)...)
	return &agentv1.RenewAgentResponse{Svid: svidProto(caller.ID, chain)}, s.applied(ctx, rev)
}

// mayRenew looks again, in the transaction: the agent may have been banned, or
// have called with a newer SVID, since this call was authorized.
func mayRenew(a *storepb.Agent, caller Caller) error {
	if reason, err := judge(a, true, caller.Cert.SerialNumber.String()); err != nil {
		return denied(reason, err.Error())
	}
	if a.GetCanReattest() {
		return denied(types.PermissionDeniedDetails_AGENT_MUST_REATTEST, "agent must reattest instead of renew")
	}
	return nil
}

func svidProto(id spiffeid.ID, chain []*x509.Certificate) *types.X509SVID {
	p := &types.X509SVID{Id: registration.IDProto(id), ExpiresAt: chain[0].NotAfter.Unix()}
	for _, cert := range chain {
		p.CertChain = append(p.CertChain, cert.Raw)
	}
	return p
}

// svidAttrs tell in the log what was signed.
func svidAttrs(id spiffeid.ID, chain []*x509.Certificate) []slog.Attr {
	return []slog.Attr{
		slog.String("spiffe_id", id.String()),
		slog.String("serial", chain[0].SerialNumber.String()),
		slog.Time("expires", chain[0].NotAfter),
	}
}
