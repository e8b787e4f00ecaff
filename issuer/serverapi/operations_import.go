package serverapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// ImportAgents takes agents over from another issuer of the trust domain, so
// that they go on with the SVIDs that it gave them. What these were signed by
// must be in the bundle already: else no agent could even connect.
func (s *OperationsService) ImportAgents(ctx context.Context, req *operationsv1.ImportAgentsRequest) (*operationsv1.ImportAgentsResponse, error) {
	if err := s.checkAuthorities(req.GetX509Authorities()); err != nil {
		return nil, statusError(codes.FailedPrecondition, "cannot import agents", err)
	}
	results := make([]*operationsv1.ImportAgentsResponse_Result, len(req.GetAgents()))
	var agents []*storepb.Agent
	var places []int
	for i, p := range req.GetAgents() {
		results[i] = &operationsv1.ImportAgentsResponse_Result{Id: p.GetId()}
		agent, err := s.importable(p)
		if err != nil {
			results[i].Status = itemStatus(codes.InvalidArgument, "invalid agent", err)
			continue
		}
		agents, places = append(agents, agent), append(places, i)
	}
	if len(agents) > 0 {
		errs, rev, err := s.deps.Store.ImportAgents(ctx, agents)
		if err != nil && len(errs) != len(agents) {
			return nil, statusError(codes.Internal, "failed to import agents", err)
		}
		for n, i := range places {
			results[i].Status = importStatus(errs[n])
		}
		if err := s.deps.Registry.Wait(ctx, rev); err != nil {
			return nil, statusError(codes.Unavailable, "written, but not yet visible", err)
		}
	}
	return &operationsv1.ImportAgentsResponse{Results: results}, nil
}

func importStatus(err error) *types.Status {
	switch {
	case err == nil:
		return itemOK()
	case errors.Is(err, store.ErrExists):
		return itemStatus(codes.AlreadyExists, "agent already exists", nil)
	}
	return itemStatus(codes.Internal, "failed to import agent", err)
}

// checkAuthorities wants each of the certificates to be in the bundle.
func (s *OperationsService) checkAuthorities(certs []*types.X509Certificate) error {
	ours := make(map[string]struct{})
	for _, authority := range s.deps.Registry.Bundle().GetX509Authorities() {
		ours[string(authority.GetAsn1())] = struct{}{}
	}
	for i, cert := range certs {
		if _, ok := ours[string(cert.GetAsn1())]; !ok {
			return fmt.Errorf("x509_authorities[%d] is not in the bundle: append the other issuer's bundle first", i)
		}
	}
	return nil
}

// maxSerial bounds, in decimal digits, a serial number: 20 octets are the most
// that RFC 5280 (section 4.1.2.2) lets a certificate have.
const maxSerial = 49

func isSerial(s string) bool {
	return s != "" && len(s) <= maxSerial && strings.Trim(s, "0123456789") == "" && s[0] != '0'
}

// importable is the record of an agent as ListAgents tells of it.
func (s *OperationsService) importable(p *types.Agent) (*storepb.Agent, error) {
	id, err := registration.IDFromProto(p.GetId())
	if err != nil {
		return nil, err
	}
	serial := p.GetX509SvidSerialNumber()
	switch {
	case !nodeattest.IsAgentID(s.deps.TrustDomain, id):
		return nil, fmt.Errorf("%s is not in the agent namespace of trust domain %s", id, s.deps.TrustDomain.Name())
	case p.GetAttestationType() == "" || len(p.GetAttestationType()) > maxAttestationType:
		return nil, fmt.Errorf("attestation type of %d bytes: want 1 to %d", len(p.GetAttestationType()), maxAttestationType)
	case len(p.GetAgentVersion()) > maxAgentVersion:
		return nil, fmt.Errorf("agent version of %d bytes: at most %d", len(p.GetAgentVersion()), maxAgentVersion)
	case p.GetBanned() && serial != "":
		return nil, errors.New("a banned agent has no serial number")
	case !p.GetBanned() && !isSerial(serial):
		return nil, fmt.Errorf("serial number %q: want up to %d decimal digits", clip(serial), maxSerial)
	case !p.GetBanned() && p.GetX509SvidExpiresAt() <= 0:
		return nil, fmt.Errorf("expiry of %d: want Unix seconds", p.GetX509SvidExpiresAt())
	}
	selectors, err := registration.SelectorsFromProto(p.GetSelectors())
	if err != nil {
		return nil, fmt.Errorf("selectors: %w", err)
	}
	return &storepb.Agent{
		SpiffeId:        id.String(),
		AttestationType: p.GetAttestationType(),
		Serial:          serial,
		NotAfter:        p.GetX509SvidExpiresAt(),
		Selectors:       registration.SelectorsProto(selectors),
		CanReattest:     p.GetCanReattest(),
		Banned:          p.GetBanned(),
		AgentVersion:    p.GetAgentVersion(),
	}, nil
}
