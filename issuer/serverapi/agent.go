package serverapi

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"unicode"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// AgentService is spire.api.server.agent.v1.Agent.
type AgentService struct {
	agentv1.UnsafeAgentServer
	deps Deps
}

// NewAgentService returns the service.
func NewAgentService(d Deps) *AgentService {
	d.setDefaults()
	return &AgentService{deps: d}
}

// GetAgent returns one agent. NotFound if there is none.
func (s *AgentService) GetAgent(_ context.Context, req *agentv1.GetAgentRequest) (*types.Agent, error) {
	id, err := s.agentID(req.GetId())
	if err != nil {
		return nil, err
	}
	agent, ok := s.deps.Registry.Agent(id)
	if !ok {
		return nil, statusError(codes.NotFound, "agent not found", nil)
	}
	return agentProto(agent, req.GetOutputMask())
}

// DeleteAgent forgets an agent ("evict"): its SVID is refused from now on, and
// it may join again as a new one.
func (s *AgentService) DeleteAgent(ctx context.Context, req *agentv1.DeleteAgentRequest) (*emptypb.Empty, error) {
	id, err := s.agentID(req.GetId())
	if err != nil {
		return nil, err
	}
	annotate(ctx, slog.String("agent", id.String()))
	rev, err := s.deps.Store.DeleteAgent(ctx, id)
	if err != nil {
		return nil, agentError("failed to remove agent", err)
	}
	return &emptypb.Empty{}, s.applied(ctx, rev)
}

// BanAgent refuses an agent from now on, joining included.
func (s *AgentService) BanAgent(ctx context.Context, req *agentv1.BanAgentRequest) (*emptypb.Empty, error) {
	id, err := s.agentID(req.GetId())
	if err != nil {
		return nil, err
	}
	annotate(ctx, slog.String("agent", id.String()))
	_, rev, err := s.deps.Store.UpdateAgent(ctx, id, func(a *storepb.Agent) error {
		a.Banned = true
		a.Serial, a.NewSerial, a.NewNotAfter = "", "", 0
		return nil
	})
	if err != nil {
		return nil, agentError("failed to ban agent", err)
	}
	return &emptypb.Empty{}, s.applied(ctx, rev)
}

// maxAgentVersion is SPIRE's, in bytes.
const maxAgentVersion = 255

// lanyardAgent begins the version of our own agents, which acknowledge bundles.
// SPIRE's send a serial too, at their start alone.
const lanyardAgent = "lanyard"

// PostStatus keeps the version that the calling agent says it has and, of our own
// agents, which bundle it holds. What is known already is not written.
func (s *AgentService) PostStatus(ctx context.Context, req *agentv1.PostStatusRequest) (*agentv1.PostStatusResponse, error) {
	version, id := req.GetAgentVersion(), CallerFrom(ctx).ID
	if len(version) > maxAgentVersion {
		return nil, statusError(codes.InvalidArgument, "agent version is too long (max 255 characters)", nil)
	}
	if strings.ContainsFunc(version, func(r rune) bool { return !unicode.IsPrint(r) }) {
		// It is shown to operators, whose terminals would obey it.
		return nil, statusError(codes.InvalidArgument, "agent version has characters that cannot be printed", nil)
	}
	annotate(ctx, slog.String("version", version))
	known, ok := s.deps.Registry.Agent(id)
	if !ok { // evicted since this call was authorized
		return nil, statusError(codes.NotFound, "agent not found", nil)
	}
	if version != "" && version != known.GetAgentVersion() {
		_, rev, err := s.deps.Store.UpdateAgent(ctx, id, func(a *storepb.Agent) error {
			a.AgentVersion = version
			return nil
		})
		if err != nil {
			return nil, agentError("failed to update agent", err)
		}
		if err := s.applied(ctx, rev); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(version, lanyardAgent) && req.GetCurrentBundleSerial() > 0 {
		// Nobody holds a bundle that is not there yet.
		held := min(req.GetCurrentBundleSerial(), s.deps.Registry.Bundle().GetSequenceNumber())
		annotate(ctx, slog.Uint64("bundle", held))
		s.deps.Registry.AckBundle(id, held)
	}
	return &agentv1.PostStatusResponse{}, nil
}

// applied waits until this issuer's readers see what was written.
func (s *AgentService) applied(ctx context.Context, rev store.Revision) error {
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return statusError(codes.Unavailable, "written, but not yet visible", err)
	}
	return nil
}

func (s *AgentService) agentID(p *types.SPIFFEID) (spiffeid.ID, error) {
	id, err := registration.IDFromProto(p)
	if err == nil && !nodeattest.IsAgentID(s.deps.TrustDomain, id) {
		err = errors.New(id.String() + " is not in the agent namespace of trust domain " + s.deps.TrustDomain.Name())
	}
	if err != nil {
		return spiffeid.ID{}, statusError(codes.InvalidArgument, "invalid agent ID", err)
	}
	return id, nil
}

func agentError(msg string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return statusError(codes.NotFound, "agent not found", nil)
	}
	return statusError(codes.Internal, msg, err)
}

// agentProto returns the agent as it goes over the wire; a nil mask is all of it.
func agentProto(a *storepb.Agent, mask *types.AgentMask) (*types.Agent, error) {
	id, err := spiffeid.FromString(a.GetSpiffeId())
	if err != nil {
		return nil, statusError(codes.Internal, "agent in the store", err)
	}
	p := &types.Agent{Id: registration.IDProto(id)}
	if mask == nil || mask.AttestationType {
		p.AttestationType = a.GetAttestationType()
	}
	if mask == nil || mask.X509SvidSerialNumber {
		p.X509SvidSerialNumber = a.GetSerial()
	}
	if mask == nil || mask.X509SvidExpiresAt {
		p.X509SvidExpiresAt = a.GetNotAfter()
	}
	if mask == nil || mask.Selectors {
		p.Selectors = a.GetSelectors()
	}
	if mask == nil || mask.Banned {
		p.Banned = enroll.Banned(a)
	}
	if mask == nil || mask.CanReattest {
		p.CanReattest = a.GetCanReattest()
	}
	if mask == nil || mask.AgentVersion {
		p.AgentVersion = a.GetAgentVersion()
	}
	return p, nil
}
