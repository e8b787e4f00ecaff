package serverapi

import (
	"context"
	"log/slog"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// BundleService is spire.api.server.bundle.v1.Bundle. The bundle of the issuer's
// own trust domain and those of others are never one for the other: every
// method takes the one kind or the other.
type BundleService struct {
	bundlev1.UnsafeBundleServer
	deps Deps
}

// NewBundleService returns the service.
func NewBundleService(d Deps) *BundleService {
	d.setDefaults()
	return &BundleService{deps: d}
}

// GetBundle returns the bundle of the issuer's own trust domain.
func (s *BundleService) GetBundle(_ context.Context, req *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	bundle := s.deps.Registry.Bundle()
	if bundle == nil {
		return nil, statusError(codes.NotFound, "bundle not found", nil)
	}
	return maskBundle(bundle, req.GetOutputMask()), nil
}

// maskBundle returns what the mask lets through; nil is all of it. The parts
// are shared with b, which nobody changes.
func maskBundle(b *types.Bundle, mask *types.BundleMask) *types.Bundle {
	if mask == nil {
		return b
	}
	masked := &types.Bundle{TrustDomain: b.GetTrustDomain()}
	copyBundle(masked, b, mask)
	return masked
}

// copyBundle copies what the mask names; nil is all but the trust domain.
func copyBundle(to, from *types.Bundle, mask *types.BundleMask) {
	if mask == nil || mask.X509Authorities {
		to.X509Authorities = from.GetX509Authorities()
	}
	if mask == nil || mask.JwtAuthorities {
		to.JwtAuthorities = from.GetJwtAuthorities()
	}
	if mask == nil || mask.WitAuthorities {
		to.WitAuthorities = from.GetWitAuthorities()
	}
	if mask == nil || mask.RefreshHint {
		to.RefreshHint = from.GetRefreshHint()
	}
	if mask == nil || mask.SequenceNumber {
		to.SequenceNumber = from.GetSequenceNumber()
	}
}

// CountBundles counts the bundles known, the own included.
func (s *BundleService) CountBundles(context.Context, *bundlev1.CountBundlesRequest) (*bundlev1.CountBundlesResponse, error) {
	count := s.deps.Registry.FederatedBundleCount()
	if s.deps.Registry.Bundle() != nil {
		count++
	}
	return &bundlev1.CountBundlesResponse{Count: int32(count)}, nil
}

// GetFederatedBundle returns the bundle of another trust domain.
func (s *BundleService) GetFederatedBundle(ctx context.Context, req *bundlev1.GetFederatedBundleRequest) (*types.Bundle, error) {
	td, err := spiffeid.TrustDomainFromString(req.GetTrustDomain())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "trust domain argument is not valid", err)
	}
	annotate(ctx, slog.String("trust_domain", td.Name()))
	if td == s.deps.TrustDomain {
		return nil, statusError(codes.InvalidArgument, "getting a federated bundle for the server's own trust domain is not allowed", nil)
	}
	b, ok := s.deps.Registry.FederatedBundle(td)
	if !ok {
		return nil, statusError(codes.NotFound, "bundle not found", nil)
	}
	return maskBundle(b, req.GetOutputMask()), nil
}

// ListFederatedBundles returns the bundles of other trust domains, by name.
func (s *BundleService) ListFederatedBundles(_ context.Context, req *bundlev1.ListFederatedBundlesRequest) (*bundlev1.ListFederatedBundlesResponse, error) {
	page, next, err := domainPage(s.deps.Registry.FederatedBundles(), req.GetPageSize(), req.GetPageToken(),
		func(b *types.Bundle) *types.Bundle { return maskBundle(b, req.GetOutputMask()) })
	if err != nil {
		return nil, err
	}
	return &bundlev1.ListFederatedBundlesResponse{Bundles: page, NextPageToken: next}, nil
}

// PublishWITAuthority is not implemented, nor is it by SPIRE.
func (s *BundleService) PublishWITAuthority(context.Context, *bundlev1.PublishWITAuthorityRequest) (*bundlev1.PublishWITAuthorityResponse, error) {
	return nil, statusError(codes.Unimplemented, "WIT-SVID functionality is not yet implemented", nil)
}
