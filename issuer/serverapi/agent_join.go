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
	switch {
	case errors.Is(err, enroll.ErrBadRequest):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, enroll.ErrTokenExists):
		return nil, statusError(codes.AlreadyExists, "failed to create token", err)
	case err != nil:
		return nil, statusError(codes.Internal, "failed to create token", err)
	}
	return &types.JoinToken{Value: created.Token, ExpiresAt: created.Expires.Unix()}, nil
}

// AttestAgent admits an agent: its parameters, any challenges of the method and
// their answers, then its SVID.
func (s *AgentService) AttestAgent(stream agentv1.Agent_AttestAgentServer) error {
	ctx := stream.Context()
	req, err := stream.Recv()
	if err != nil {
		return statusError(codes.InvalidArgument, "failed to receive request from stream", err)
	}
	params := req.GetParams()
	if err := checkAttestParams(params); err != nil {
		return statusError(codes.InvalidArgument, "malformed param", err)
	}
	annotate(ctx, slog.String("attestation", params.GetData().GetType()))
	admission, err := s.deps.Enroll.Attest(ctx, enroll.Attempt{
		Method:  params.GetData().GetType(),
		Payload: params.GetData().GetPayload(),
		CSR:     params.GetParams().GetCsr(),
	})
	if err != nil {
		return attestError(err)
	}
	annotate(ctx, svidAttrs(admission.ID, admission.SVID)...)
	return stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Result_{
		Result: &agentv1.AttestAgentResponse_Result{
			Svid:         svidProto(admission.ID, admission.SVID),
			Reattestable: admission.Reattestable,
		},
	}})
}

// maxAttestationType bounds, in bytes, what a stranger can put into the log.
const maxAttestationType = 64

func checkAttestParams(params *agentv1.AttestAgentRequest_Params) error {
	switch {
	case params == nil:
		return errors.New("missing params")
	case params.GetData() == nil:
		return errors.New("missing attestation data")
	case params.GetParams() == nil:
		return errors.New("missing X509-SVID parameters")
	case len(params.GetParams().GetCsr()) == 0:
		return errors.New("missing CSR")
	case params.GetData().GetType() == "":
		return errors.New("missing attestation data type")
	case len(params.GetData().GetType()) > maxAttestationType:
		return errors.New("attestation data type is too long")
	case len(params.GetData().GetPayload()) == 0:
		return errors.New("missing attestation data payload")
	}
	return nil
}

func attestError(err error) error {
	switch {
	case errors.Is(err, enroll.ErrUnknownMethod):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, enroll.ErrTokenSpent), errors.Is(err, enroll.ErrTokenExpired),
		errors.Is(err, ca.ErrCSRMalformed), errors.Is(err, ca.ErrCSRSignature):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, enroll.ErrBanned):
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return statusError(codes.Internal, "failed to attest", err)
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
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	chain, err := s.deps.CA.SignAgentSVID(ctx, caller.ID, csr.PublicKey)
	if err != nil {
		return nil, statusError(codes.Internal, "failed to sign X509 SVID", err)
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
