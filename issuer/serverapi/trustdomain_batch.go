package serverapi

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// relationshipWrite writes one relationship.
type relationshipWrite func(context.Context, spiffeid.TrustDomain, *types.FederationRelationship) (*types.FederationRelationship, store.Revision, error)

// each writes the relationships, hands each result to add in order, and returns
// when the registry has what was written. doing is how the texts name it.
func (s *TrustDomainService) each(ctx context.Context, doing string, relationships []*types.FederationRelationship, parts, mask *types.FederationRelationshipMask, write relationshipWrite, add func(*types.Status, *types.FederationRelationship)) error {
	names := make([]string, len(relationships))
	for i, r := range relationships {
		names[i] = r.GetTrustDomain()
	}
	room, err := batchBudget(names)
	if err != nil {
		return err
	}
	statuses := make([]*types.Status, len(relationships))
	written := make([]*types.FederationRelationship, len(relationships))
	var rev store.Revision
	for i, r := range relationships {
		var done store.Revision
		written[i], done, statuses[i] = s.one(ctx, doing, r, parts, write)
		rev = max(rev, done)
	}
	// The answers have the bundles that the registry has by then.
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return statusError(codes.Internal, "failed to "+doing+" federation relationship", err)
	}
	for i, r := range written {
		if r != nil {
			s.warnOfNoBundle(r)
			full := s.relationship(r, mask)
			if !room.take(full) {
				full = &types.FederationRelationship{TrustDomain: r.GetTrustDomain()}
			}
			r = full
		}
		add(room.status(statuses[i]), r)
	}
	return nil
}

// one writes one relationship; parts says which of it must be there and valid.
func (s *TrustDomainService) one(ctx context.Context, doing string, p *types.FederationRelationship, parts *types.FederationRelationshipMask, write relationshipWrite) (*types.FederationRelationship, store.Revision, *types.Status) {
	r, err := parseRelationship(p, parts)
	if err != nil {
		return nil, 0, itemStatus(codes.InvalidArgument, "failed to convert federation relationship", err)
	}
	td := spiffeid.RequireTrustDomainFromString(r.GetTrustDomain()) // parsed just now
	if td == s.deps.TrustDomain {
		return nil, 0, itemStatus(codes.InvalidArgument, "unable to "+doing+" federation relationship for server trust domain", nil)
	}
	written, rev, err := write(ctx, td, r)
	switch {
	case err == nil:
		return written, rev, itemOK()
	case errors.Is(err, store.ErrNotFound):
		return nil, rev, itemStatus(codes.NotFound, "federation relationship not found", nil)
	default:
		return nil, rev, itemStatus(storeCode(err), "failed to "+doing+" federation relationship", err)
	}
}

// warnOfNoBundle tells in the log why bundles will not be fetched: the endpoint
// must be verified with a bundle that is here already.
func (s *TrustDomainService) warnOfNoBundle(r *types.FederationRelationship) {
	id, err := spiffeid.FromString(r.GetHttpsSpiffe().GetEndpointSpiffeId())
	if err != nil || id.TrustDomain() == s.deps.TrustDomain {
		return
	}
	if _, ok := s.deps.Registry.FederatedBundle(id.TrustDomain()); !ok {
		s.deps.Log.Warn("bundle not found for the endpoint SPIFFE ID trust domain: set it, or bundles cannot be fetched from there",
			"trust_domain", r.GetTrustDomain(), "endpoint_spiffe_id", id.String())
	}
}

// BatchCreateFederationRelationship creates relationships. A bundle in one
// replaces that of its trust domain.
func (s *TrustDomainService) BatchCreateFederationRelationship(ctx context.Context, req *trustdomainv1.BatchCreateFederationRelationshipRequest) (*trustdomainv1.BatchCreateFederationRelationshipResponse, error) {
	resp := &trustdomainv1.BatchCreateFederationRelationshipResponse{}
	create := func(ctx context.Context, _ spiffeid.TrustDomain, r *types.FederationRelationship) (*types.FederationRelationship, store.Revision, error) {
		rev, err := s.deps.Store.PutRelationship(ctx, r, store.ModeCreate)
		return r, rev, err
	}
	return resp, s.each(ctx, "create", req.GetFederationRelationships(), nil, req.GetOutputMask(), create, func(st *types.Status, r *types.FederationRelationship) {
		resp.Results = append(resp.Results, &trustdomainv1.BatchCreateFederationRelationshipResponse_Result{Status: st, FederationRelationship: r})
	})
}

// BatchUpdateFederationRelationship replaces the masked parts of relationships;
// the other parts of the request are not looked at.
func (s *TrustDomainService) BatchUpdateFederationRelationship(ctx context.Context, req *trustdomainv1.BatchUpdateFederationRelationshipRequest) (*trustdomainv1.BatchUpdateFederationRelationshipResponse, error) {
	resp := &trustdomainv1.BatchUpdateFederationRelationshipResponse{}
	update := func(ctx context.Context, td spiffeid.TrustDomain, with *types.FederationRelationship) (*types.FederationRelationship, store.Revision, error) {
		return s.deps.Store.UpdateRelationship(ctx, td, func(r *types.FederationRelationship) error {
			copyRelationship(r, with, req.GetInputMask())
			return nil
		})
	}
	return resp, s.each(ctx, "update", req.GetFederationRelationships(), req.GetInputMask(), req.GetOutputMask(), update, func(st *types.Status, r *types.FederationRelationship) {
		resp.Results = append(resp.Results, &trustdomainv1.BatchUpdateFederationRelationshipResponse_Result{Status: st, FederationRelationship: r})
	})
}

// BatchDeleteFederationRelationship deletes relationships. The bundles stay.
func (s *TrustDomainService) BatchDeleteFederationRelationship(ctx context.Context, req *trustdomainv1.BatchDeleteFederationRelationshipRequest) (*trustdomainv1.BatchDeleteFederationRelationshipResponse, error) {
	room, err := batchBudget(req.GetTrustDomains())
	if err != nil {
		return nil, err
	}
	resp := &trustdomainv1.BatchDeleteFederationRelationshipResponse{}
	var rev store.Revision
	for _, name := range req.GetTrustDomains() {
		shown, done, st := s.delete(ctx, name)
		rev = max(rev, done)
		resp.Results = append(resp.Results, &trustdomainv1.BatchDeleteFederationRelationshipResponse_Result{TrustDomain: shown, Status: room.status(st)})
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, statusError(codes.Internal, "failed to delete federation relationship", err)
	}
	return resp, nil
}

func (s *TrustDomainService) delete(ctx context.Context, name string) (shown string, _ store.Revision, _ *types.Status) {
	if name == "" {
		return name, 0, itemStatus(codes.InvalidArgument, "missing trust domain", nil)
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return name, 0, itemStatus(codes.InvalidArgument, "failed to parse trust domain", err)
	}
	rev, err := s.deps.Store.DeleteRelationship(ctx, td)
	switch {
	case err == nil:
		return td.Name(), rev, itemOK()
	case errors.Is(err, store.ErrNotFound):
		return td.Name(), rev, itemStatus(codes.NotFound, "federation relationship not found", nil)
	default:
		return td.Name(), rev, itemStatus(codes.Internal, "failed to delete federation relationship", err)
	}
}
