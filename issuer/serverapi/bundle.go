package serverapi

import (
	"context"
	"log/slog"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// BundleService is spire.api.server.bundle.v1.Bundle.
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
	if mask.X509Authorities {
		masked.X509Authorities = b.GetX509Authorities()
	}
	if mask.JwtAuthorities {
		masked.JwtAuthorities = b.GetJwtAuthorities()
	}
	if mask.WitAuthorities {
		masked.WitAuthorities = b.GetWitAuthorities()
	}
	if mask.RefreshHint {
		masked.RefreshHint = b.GetRefreshHint()
	}
	if mask.SequenceNumber {
		masked.SequenceNumber = b.GetSequenceNumber()
	}
	return masked
}

// CountBundles counts the bundles known, the own included.
func (s *BundleService) CountBundles(context.Context, *bundlev1.CountBundlesRequest) (*bundlev1.CountBundlesResponse, error) {
	var count int32
	if s.deps.Registry.Bundle() != nil {
		count = 1
	}
	return &bundlev1.CountBundlesResponse{Count: count}, nil
}

// GetFederatedBundle returns the bundle of another trust domain. None is known
// yet, so a well-formed request ends in NotFound, which agents put up with.
func (s *BundleService) GetFederatedBundle(ctx context.Context, req *bundlev1.GetFederatedBundleRequest) (*types.Bundle, error) {
	td, err := spiffeid.TrustDomainFromString(req.GetTrustDomain())
	if err != nil {
		return nil, statusError(codes.InvalidArgument, "trust domain argument is not valid", err)
	}
	annotate(ctx, slog.String("trust_domain", td.Name()))
	if td == s.deps.TrustDomain {
		return nil, statusError(codes.InvalidArgument, "getting a federated bundle for the server's own trust domain is not allowed", nil)
	}
	return nil, statusError(codes.NotFound, "bundle not found", nil)
}

// ListFederatedBundles is not implemented.
func (s *BundleService) ListFederatedBundles(context.Context, *bundlev1.ListFederatedBundlesRequest) (*bundlev1.ListFederatedBundlesResponse, error) {
	return nil, unimplemented("federation")
}

// BatchCreateFederatedBundle is not implemented.
func (s *BundleService) BatchCreateFederatedBundle(context.Context, *bundlev1.BatchCreateFederatedBundleRequest) (*bundlev1.BatchCreateFederatedBundleResponse, error) {
	return nil, unimplemented("federation")
}

// BatchUpdateFederatedBundle is not implemented.
func (s *BundleService) BatchUpdateFederatedBundle(context.Context, *bundlev1.BatchUpdateFederatedBundleRequest) (*bundlev1.BatchUpdateFederatedBundleResponse, error) {
	return nil, unimplemented("federation")
}

// BatchSetFederatedBundle is not implemented.
func (s *BundleService) BatchSetFederatedBundle(context.Context, *bundlev1.BatchSetFederatedBundleRequest) (*bundlev1.BatchSetFederatedBundleResponse, error) {
	return nil, unimplemented("federation")
}

// BatchDeleteFederatedBundle is not implemented.
func (s *BundleService) BatchDeleteFederatedBundle(context.Context, *bundlev1.BatchDeleteFederatedBundleRequest) (*bundlev1.BatchDeleteFederatedBundleResponse, error) {
	return nil, unimplemented("federation")
}

// AppendBundle is not implemented.
func (s *BundleService) AppendBundle(context.Context, *bundlev1.AppendBundleRequest) (*types.Bundle, error) {
	return nil, unimplemented("appending to the bundle")
}

// PublishJWTAuthority is not implemented.
func (s *BundleService) PublishJWTAuthority(context.Context, *bundlev1.PublishJWTAuthorityRequest) (*bundlev1.PublishJWTAuthorityResponse, error) {
	return nil, unimplemented("publishing JWT authorities")
}

// PublishWITAuthority is not implemented.
func (s *BundleService) PublishWITAuthority(context.Context, *bundlev1.PublishWITAuthorityRequest) (*bundlev1.PublishWITAuthorityResponse, error) {
	return nil, unimplemented("publishing WIT authorities")
}
