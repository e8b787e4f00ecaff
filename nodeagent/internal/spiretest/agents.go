package spiretest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"math/big"
	"path"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

type token struct {
	expires time.Time
	spentBy *[32]byte // hash of the public key
}

type agent struct {
	serial, next *big.Int // nil serial: banned
	reattests    bool
}

// Token makes a join token that lives for life.
func (s *Server) Token(name string, life time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[name] = &token{expires: time.Now().Add(life)}
	return name
}

// AgentID is the ID of the agent that joins with the token.
func (s *Server) AgentID(token string) spiffeid.ID {
	id, err := nodeattest.JoinTokenAgentID(s.CA.TrustDomain, token)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// Enroll makes svid that of the agent which joined with the token.
func (s *Server) Enroll(name string, svid *x509svid.SVID) {
	s.Token(name, time.Hour)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256(svid.Certificates[0].RawSubjectPublicKeyInfo)
	s.tokens[name].spentBy = &key
	s.agents[svid.ID] = &agent{serial: svid.Certificates[0].SerialNumber}
}

// Ban bans an agent.
func (s *Server) Ban(id spiffeid.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents[id] = &agent{}
	s.wake()
}

// Evict forgets an agent.
func (s *Server) Evict(id spiffeid.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.agents, id)
	s.wake()
	maps.DeleteFunc(s.nodeKeys, func(_ [32]byte, bound spiffeid.ID) bool { return bound == id })
}

// Serials returns the serial numbers of an agent: the one in use, and that of a
// renewal not yet used (nil: none).
func (s *Server) Serials(id spiffeid.ID) (current, next *big.Int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.agents[id]; a != nil {
		return a.serial, a.next
	}
	return nil, nil
}

// admit counts a call and authorizes it as SPIRE does.
func (s *Server) admit(ctx context.Context, method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := path.Base(method)
	s.calls[name]++
	defer func() { close(s.moved); s.moved = make(chan struct{}) }()
	if s.Fail != nil && name != "Watch" {
		return s.Fail
	}
	switch name {
	case "AttestAgent", "GetBundle":
		return nil
	}
	return s.allow(ctx, method)
}

// allow is nil for an agent in good standing; s.mu is held.
func (s *Server) allow(ctx context.Context, method string) error {
	cert := clientCert(ctx)
	if cert == nil {
		return status.Errorf(codes.PermissionDenied, "authorization denied for method %s", method)
	}
	reason := s.authorize(cert)
	if reason == types.PermissionDeniedDetails_UNKNOWN {
		return nil
	}
	st, err := status.New(codes.PermissionDenied, "authorization denied for method "+method).
		WithDetails(&types.PermissionDeniedDetails{Reason: reason})
	if err != nil {
		return err
	}
	return st.Err()
}

// authorize returns UNKNOWN for an agent in good standing.
func (s *Server) authorize(cert *x509.Certificate) types.PermissionDeniedDetails_Reason {
	a := s.agents[certID(cert)]
	switch {
	case !time.Now().Before(cert.NotAfter):
		return types.PermissionDeniedDetails_AGENT_EXPIRED
	case a == nil:
		return types.PermissionDeniedDetails_AGENT_NOT_ATTESTED
	case a.serial == nil:
		return types.PermissionDeniedDetails_AGENT_BANNED
	case a.serial.Cmp(cert.SerialNumber) == 0:
	case a.next != nil && a.next.Cmp(cert.SerialNumber) == 0:
		a.serial, a.next = a.next, nil
		s.wake() // the stream of the SVID before ends
	default:
		return types.PermissionDeniedDetails_AGENT_NOT_ACTIVE
	}
	return types.PermissionDeniedDetails_UNKNOWN
}

func clientCert(ctx context.Context) *x509.Certificate {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	if _, err := mtls.PeerID(info.State); err != nil {
		return nil
	}
	return info.State.PeerCertificates[0]
}

func certID(cert *x509.Certificate) spiffeid.ID {
	id, _ := spiffeid.FromURI(cert.URIs[0])
	return id
}

func ttlOr(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return time.Hour
	}
	return ttl
}

// sign signs for the public key of a CSR; s.mu is held.
func (s *Server) sign(id spiffeid.ID, der []byte, ttl time.Duration) (*x509.Certificate, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "malformed CSR: %v", err)
	}
	now := time.Now()
	return s.signer.Sign(s.t, id.String(), csr.PublicKey, testca.Lifetime(now.Add(-10*time.Second), now.Add(ttlOr(ttl)))), nil
}

func x509SVID(id spiffeid.ID, cert *x509.Certificate) *types.X509SVID {
	return &types.X509SVID{Id: registration.IDProto(id), CertChain: [][]byte{cert.Raw}, ExpiresAt: cert.NotAfter.Unix()}
}

type agentService struct {
	agentv1.UnimplementedAgentServer
	s *Server
}

func (a agentService) AttestAgent(stream grpc.BidiStreamingServer[agentv1.AttestAgentRequest, agentv1.AttestAgentResponse]) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	result := &agentv1.AttestAgentResponse_Result{}
	if method := req.GetParams().GetData().GetType(); method == nodeattest.JoinToken {
		result.Svid, err = a.attest(req.GetParams())
	} else {
		result.Reattestable = a.s.reattests()
		result.Svid, err = a.challenge(stream, method, req.GetParams())
	}
	if err != nil {
		return err
	}
	return stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Result_{Result: result}})
}

func (a agentService) attest(params *agentv1.AttestAgentRequest_Params) (*types.X509SVID, error) {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	name := string(params.GetData().GetPayload())
	t := s.tokens[name]
	id, err := nodeattest.JoinTokenAgentID(s.CA.TrustDomain, name)
	if err != nil || t == nil {
		return nil, status.Error(codes.InvalidArgument, nodeattest.TokenSpent)
	}
	if !time.Now().Before(t.expires) {
		return nil, status.Error(codes.InvalidArgument, nodeattest.TokenExpired)
	}
	if known := s.agents[id]; known != nil && known.serial == nil {
		return nil, status.Error(codes.PermissionDenied, nodeattest.AgentBanned)
	}
	cert, err := s.sign(id, params.GetParams().GetCsr(), s.AgentTTL)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	if t.spentBy != nil && *t.spentBy != key {
		return nil, status.Error(codes.InvalidArgument, nodeattest.TokenSpent)
	}
	t.spentBy = &key
	s.agents[id] = &agent{serial: cert.SerialNumber}
	if s.LoseJoins > 0 {
		s.LoseJoins--
		return nil, status.Error(codes.Unavailable, "the answer was lost")
	}
	return x509SVID(id, cert), nil
}

func (a agentService) RenewAgent(ctx context.Context, req *agentv1.RenewAgentRequest) (*agentv1.RenewAgentResponse, error) {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	id := certID(clientCert(ctx))
	if s.agents[id].reattests {
		st, err := status.New(codes.PermissionDenied, "agent must reattest instead of renew").
			WithDetails(&types.PermissionDeniedDetails{Reason: types.PermissionDeniedDetails_AGENT_MUST_REATTEST})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	cert, err := s.sign(id, req.GetParams().GetCsr(), s.AgentTTL)
	if err != nil {
		return nil, err
	}
	if !s.LoseRenewals {
		s.agents[id].next = cert.SerialNumber
	}
	return &agentv1.RenewAgentResponse{Svid: x509SVID(id, cert)}, nil
}

// PostStatus keeps what an agent says of itself, for [Server.Posted].
func (a agentService) PostStatus(_ context.Context, req *agentv1.PostStatusRequest) (*agentv1.PostStatusResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if a.s.NoStatus {
		return nil, status.Error(codes.Unimplemented, "unknown method PostStatus")
	}
	a.s.posted = append(a.s.posted, req)
	return &agentv1.PostStatusResponse{}, nil
}

// Posted returns the statuses that agents posted, in order.
func (s *Server) Posted() []*agentv1.PostStatusRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*agentv1.PostStatusRequest(nil), s.posted...)
}
