package spiretest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/x509pop"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

type attestStream = grpc.BidiStreamingServer[agentv1.AttestAgentRequest, agentv1.AttestAgentResponse]

// challenge attests by join_key, or by x509pop with any certificate.
func (a agentService) challenge(stream attestStream, method string, params *agentv1.AttestAgentRequest_Params) (*types.X509SVID, error) {
	switch {
	case method == nodeattest.JoinKey && !a.without():
		return a.joinKey(stream, params)
	case method == nodeattest.X509POP:
		return a.x509pop(stream, params)
	}
	return nil, status.Errorf(codes.FailedPrecondition, "error getting node attestor: could not find node attestor type %q", method)
}

func (s *Server) reattests() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.NotReattestable
}

func (a agentService) without() bool {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	return a.s.NoJoinKey
}

// ask sends a challenge and returns the response.
func ask(stream attestStream, challenge []byte) ([]byte, error) {
	err := stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Challenge{Challenge: challenge}})
	if err != nil {
		return nil, err
	}
	req, err := stream.Recv()
	return req.GetChallengeResponse(), err
}

func (a agentService) joinKey(stream attestStream, params *agentv1.AttestAgentRequest_Params) (*types.X509SVID, error) {
	claim, err := joinkey.ParseClaim(params.GetData().GetPayload())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	challenge, err := joinkey.NewChallenge()
	if err != nil {
		return nil, err
	}
	response, err := ask(stream, challenge)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(params.GetParams().GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	err = claim.Verify(challenge, response, joinkey.Attempt{
		TrustDomain: a.s.CA.TrustDomain, CSRKeyHash: sha256.Sum256(csr.RawSubjectPublicKeyInfo), Exporter: exporter(stream.Context()),
	})
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	id, bound := a.s.nodeKeys[claim.KeyHash]
	if !bound {
		if id, err = a.s.bind(claim); err != nil {
			return nil, err
		}
	}
	return a.s.admitAs(id, params)
}

func exporter(ctx context.Context) func(string, []byte, int) ([]byte, error) {
	p, _ := peer.FromContext(ctx)
	state := p.AuthInfo.(credentials.TLSInfo).State
	return state.ExportKeyingMaterial
}

// bind spends the claim's token; s.mu is held.
func (s *Server) bind(claim *joinkey.Claim) (spiffeid.ID, error) {
	t := s.tokens[claim.Token]
	switch {
	case claim.Token == "":
		return spiffeid.ID{}, status.Error(codes.PermissionDenied, nodeattest.KeyUnknown)
	case t == nil || t.spentBy != nil:
		return spiffeid.ID{}, status.Error(codes.InvalidArgument, nodeattest.TokenSpent)
	case !time.Now().Before(t.expires):
		return spiffeid.ID{}, status.Error(codes.InvalidArgument, nodeattest.TokenExpired)
	}
	id, err := joinkey.AgentID(s.CA.TrustDomain, "", claim.KeyHash)
	if err == nil {
		t.spentBy = &claim.KeyHash
		s.nodeKeys[claim.KeyHash] = id
	}
	return id, err
}

func (a agentService) x509pop(stream attestStream, params *agentv1.AttestAgentRequest_Params) (*types.X509SVID, error) {
	chain, err := x509pop.ParsePayload(params.GetData().GetPayload(), x509pop.DefaultLimits())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	challenge, err := x509pop.NewChallenge(chain.Leaf)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	message, err := challenge.Message()
	if err != nil {
		return nil, err
	}
	response, err := ask(stream, message)
	if err != nil {
		return nil, err
	}
	if err := challenge.Verify(response); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if a.s.Refuse != nil {
		return nil, a.s.Refuse
	}
	id, err := spiffeid.FromSegments(a.s.CA.TrustDomain, "spire", "agent", nodeattest.X509POP, x509pop.Fingerprint(chain.Leaf))
	if err != nil {
		return nil, err
	}
	return a.s.admitAs(id, params)
}

// admitAs makes the agent's SVID; s.mu is held.
func (s *Server) admitAs(id spiffeid.ID, params *agentv1.AttestAgentRequest_Params) (*types.X509SVID, error) {
	if known := s.agents[id]; known != nil && known.serial == nil {
		return nil, status.Error(codes.PermissionDenied, nodeattest.AgentBanned)
	}
	cert, err := s.sign(id, params.GetParams().GetCsr(), s.AgentTTL)
	if err != nil {
		return nil, err
	}
	s.agents[id] = &agent{serial: cert.SerialNumber, reattests: !s.NotReattestable}
	if s.LoseJoins > 0 {
		s.LoseJoins--
		return nil, status.Error(codes.Unavailable, "the answer was lost")
	}
	return x509SVID(id, cert), nil
}
