package serverapi

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// CountAgents counts the agents that the filter lets through.
func (s *AgentService) CountAgents(_ context.Context, req *agentv1.CountAgentsRequest) (*agentv1.CountAgentsResponse, error) {
	f := req.GetFilter()
	match, err := agentFilter(f.GetByAttestationType(), f.GetBySelectorMatch(), f.GetByBanned(), f.GetByCanReattest(), f.GetByExpiresBefore())
	if err != nil {
		return nil, err
	}
	var count int32
	for _, agent := range s.deps.Registry.Agents() {
		if match(agent) {
			count++
		}
	}
	return &agentv1.CountAgentsResponse{Count: count}, nil
}

// maxAnswer keeps an answer, its overhead included, below what clients take.
const maxAnswer = maxMessage - 64<<10

// ListAgents returns agents in the order of their IDs, all of them or in pages.
// A page may be shorter than asked for where it would not fit a message. A page
// that is not empty has a token, even the last, as with SPIRE; without a page
// size there are no pages.
func (s *AgentService) ListAgents(_ context.Context, req *agentv1.ListAgentsRequest) (*agentv1.ListAgentsResponse, error) {
	f := req.GetFilter()
	match, err := agentFilter(f.GetByAttestationType(), f.GetBySelectorMatch(), f.GetByBanned(), f.GetByCanReattest(), f.GetByExpiresBefore())
	if err != nil {
		return nil, err
	}
	paged, after := req.GetPageSize() > 0, ""
	if paged {
		if after, err = parsePageToken(req.GetPageToken()); err != nil {
			return nil, err
		}
	}
	resp := &agentv1.ListAgentsResponse{}
	room := maxAnswer
	for _, agent := range s.deps.Registry.Agents() {
		if agent.GetSpiffeId() <= after || !match(agent) {
			continue
		}
		if paged && len(resp.Agents) == int(req.GetPageSize()) {
			break
		}
		p, err := agentProto(agent, req.GetOutputMask())
		if err != nil {
			return nil, err
		}
		if room -= proto.Size(p) + 8; room < 0 && !paged {
			return nil, statusError(codes.ResourceExhausted, "more agents than fit one answer: set a page size", nil)
		}
		if room < 0 && len(resp.Agents) > 0 {
			break
		}
		resp.Agents = append(resp.Agents, p)
		after = agent.GetSpiffeId()
	}
	if paged && len(resp.Agents) > 0 {
		resp.NextPageToken = pageToken(after)
	}
	return resp, nil
}

// expiryLayout is how SPIRE's clients write a time.
const expiryLayout = "2006-01-02 15:04:05 -0700 -07"

// maxFilterSelectors bounds the work of a filter for each agent.
const maxFilterSelectors = 1000

// agentFilter returns the conjunction of the parts of a filter that are set.
func agentFilter(attestation string, selectors *types.SelectorMatch, banned, reattest *wrapperspb.BoolValue, expiresBefore string) (func(*storepb.Agent) bool, error) {
	var before time.Time
	if expiresBefore != "" {
		var err error
		if before, err = time.Parse(expiryLayout, expiresBefore); err != nil {
			return nil, statusError(codes.InvalidArgument, "malformed expires-before filter", err)
		}
	}
	matches, err := selectorFilter(selectors)
	if err != nil {
		return nil, err
	}
	return func(a *storepb.Agent) bool {
		return (attestation == "" || a.GetAttestationType() == attestation) &&
			(banned == nil || enroll.Banned(a) == banned.GetValue()) &&
			(reattest == nil || a.GetCanReattest() == reattest.GetValue()) &&
			(before.IsZero() || a.GetNotAfter() < before.Unix()) &&
			matches(a.GetSelectors())
	}, nil
}

func selectorFilter(m *types.SelectorMatch) (func([]*types.Selector) bool, error) {
	if m == nil {
		return func([]*types.Selector) bool { return true }, nil
	}
	if len(m.GetSelectors()) > maxFilterSelectors {
		return nil, statusError(codes.InvalidArgument, fmt.Sprintf("malformed selectors filter: %d selectors, at most %d", len(m.GetSelectors()), maxFilterSelectors), nil)
	}
	wanted, err := registration.SelectorsFromProto(m.GetSelectors())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to parse selectors", err)
	}
	if len(wanted) == 0 {
		return nil, statusError(codes.InvalidArgument, "malformed selectors filter: no selectors", nil)
	}
	want := registration.NewSelectorSet(wanted...)
	return func(ps []*types.Selector) bool {
		has := make(registration.SelectorSet, len(ps))
		common := 0
		for _, p := range ps {
			sel := registration.Selector{Type: p.GetType(), Value: p.GetValue()}
			if _, ok := want[sel]; ok {
				common++
			}
			has[sel] = struct{}{}
		}
		switch m.GetMatch() {
		case types.SelectorMatch_MATCH_EXACT:
			return common == len(has) && common == len(want)
		case types.SelectorMatch_MATCH_SUBSET:
			return common > 0 && common == len(has)
		case types.SelectorMatch_MATCH_SUPERSET:
			return common == len(want)
		default: // MATCH_ANY
			return common > 0
		}
	}, nil
}
