package serverapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// TrustDomainService is spire.api.server.trustdomain.v1.TrustDomain: what other
// trust domains this one federates with, and where their bundles come from.
type TrustDomainService struct {
	trustdomainv1.UnsafeTrustDomainServer
	deps Deps
}

// NewTrustDomainService returns the service.
func NewTrustDomainService(d Deps) *TrustDomainService {
	d.setDefaults()
	return &TrustDomainService{deps: d}
}

// ListFederationRelationships returns the relationships, by trust domain.
func (s *TrustDomainService) ListFederationRelationships(_ context.Context, req *trustdomainv1.ListFederationRelationshipsRequest) (*trustdomainv1.ListFederationRelationshipsResponse, error) {
	page, next, err := domainPage(s.deps.Registry.Relationships(), req.GetPageSize(), req.GetPageToken(),
		func(r *types.FederationRelationship) *types.FederationRelationship {
			return s.relationship(r, req.GetOutputMask())
		})
	if err != nil {
		return nil, err
	}
	return &trustdomainv1.ListFederationRelationshipsResponse{FederationRelationships: page, NextPageToken: next}, nil
}

// GetFederationRelationship returns one relationship.
func (s *TrustDomainService) GetFederationRelationship(ctx context.Context, req *trustdomainv1.GetFederationRelationshipRequest) (*types.FederationRelationship, error) {
	td, err := spiffeid.TrustDomainFromString(req.GetTrustDomain())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to parse trust domain", err)
	}
	annotate(ctx, slog.String("trust_domain", td.Name()))
	r, ok := s.deps.Registry.Relationship(td)
	if !ok {
		return nil, statusError(codes.NotFound, "federation relationship does not exist", nil)
	}
	return s.relationship(r, req.GetOutputMask()), nil
}

// relationship returns what the mask lets through, the bundle of the trust
// domain included. The parts are shared.
func (s *TrustDomainService) relationship(r *types.FederationRelationship, mask *types.FederationRelationshipMask) *types.FederationRelationship {
	masked := &types.FederationRelationship{TrustDomain: r.GetTrustDomain()}
	copyRelationship(masked, r, mask)
	if mask != nil && !mask.TrustDomainBundle || masked.TrustDomainBundle != nil {
		return masked
	}
	if td, err := spiffeid.TrustDomainFromString(r.GetTrustDomain()); err == nil {
		masked.TrustDomainBundle, _ = s.deps.Registry.FederatedBundle(td)
	}
	return masked
}

// copyRelationship copies what the mask names; nil is all but the trust domain.
func copyRelationship(to, from *types.FederationRelationship, mask *types.FederationRelationshipMask) {
	if mask == nil || mask.BundleEndpointUrl {
		to.BundleEndpointUrl = from.GetBundleEndpointUrl()
	}
	if mask == nil || mask.BundleEndpointProfile {
		to.BundleEndpointProfile = from.GetBundleEndpointProfile()
	}
	if mask == nil || mask.TrustDomainBundle {
		to.TrustDomainBundle = from.GetTrustDomainBundle()
	}
}

// RefreshBundle fetches the bundle of a federated trust domain at once.
func (s *TrustDomainService) RefreshBundle(ctx context.Context, req *trustdomainv1.RefreshBundleRequest) (*emptypb.Empty, error) {
	td, err := spiffeid.TrustDomainFromString(req.GetTrustDomain())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to parse trust domain", err)
	}
	annotate(ctx, slog.String("trust_domain", td.Name()))
	if s.deps.Refresh == nil {
		if _, ok := s.deps.Registry.Relationship(td); !ok {
			return nil, noRelationship(td)
		}
		return nil, statusError(codes.Unimplemented, "this issuer does not fetch bundles of other trust domains: set them with bundle set", nil)
	}
	switch err := s.deps.Refresh(ctx, td); {
	case errors.Is(err, store.ErrNotFound):
		return nil, noRelationship(td)
	case err != nil:
		return nil, statusError(codes.Internal, "failed to refresh bundle", err)
	}
	return &emptypb.Empty{}, nil
}

func noRelationship(td spiffeid.TrustDomain) error {
	return statusError(codes.NotFound, fmt.Sprintf("no relationship with trust domain %q", td), nil)
}
