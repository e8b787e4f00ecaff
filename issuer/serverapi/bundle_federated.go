package serverapi

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// federatedWrite is one batch of writes of federated bundles. Every item is
// answered by itself.
type federatedWrite struct {
	// doing is how the texts name it: "creating".
	doing string
	write func(context.Context, spiffeid.TrustDomain, *types.Bundle) (*types.Bundle, store.Revision, error)
	// exists and absent are the whole texts of these answers, failed the
	// beginning of any other.
	exists, absent, failed string
}

// each runs the batch, hands each result to add in order, and returns when the
// registry has what was written.
func (s *BundleService) each(ctx context.Context, w federatedWrite, bundles []*types.Bundle, mask *types.BundleMask, add func(*types.Status, *types.Bundle)) error {
	names := make([]string, len(bundles))
	for i, b := range bundles {
		names[i] = b.GetTrustDomain()
	}
	room, err := batchBudget(names)
	if err != nil {
		return err
	}
	var rev store.Revision
	for _, b := range bundles {
		written, done, st := s.one(ctx, w, b)
		rev = max(rev, done)
		if written != nil {
			written = room.bundle(written, mask)
		}
		add(room.status(st), written)
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return statusError(codes.Internal, w.failed, err)
	}
	return nil
}

// one writes one bundle.
func (s *BundleService) one(ctx context.Context, w federatedWrite, b *types.Bundle) (*types.Bundle, store.Revision, *types.Status) {
	td, err := spiffeid.TrustDomainFromString(b.GetTrustDomain())
	if err != nil {
		return nil, 0, itemStatus(codes.InvalidArgument, "trust domain argument is not valid", err)
	}
	if td == s.deps.TrustDomain {
		return nil, 0, itemStatus(codes.InvalidArgument, w.doing+" a federated bundle for the server's own trust domain is not allowed", nil)
	}
	parsed, err := parseBundle(b)
	if err != nil {
		return nil, 0, itemStatus(codes.InvalidArgument, "failed to convert bundle", err)
	}
	written, rev, err := w.write(ctx, td, parsed)
	switch {
	case err == nil:
		return written, rev, itemOK()
	case errors.Is(err, store.ErrExists):
		return nil, rev, itemStatus(codes.AlreadyExists, w.exists, nil)
	case errors.Is(err, store.ErrNotFound):
		return nil, rev, itemStatus(codes.NotFound, w.absent, nil)
	default:
		return nil, rev, itemStatus(storeCode(err), w.failed, err)
	}
}

// stored returns a write that stores the bundle as it is.
func (s *BundleService) stored(mode store.Mode) func(context.Context, spiffeid.TrustDomain, *types.Bundle) (*types.Bundle, store.Revision, error) {
	return func(ctx context.Context, _ spiffeid.TrustDomain, b *types.Bundle) (*types.Bundle, store.Revision, error) {
		rev, err := s.deps.Store.SetFederatedBundle(ctx, b, mode)
		return b, rev, err
	}
}

// BatchCreateFederatedBundle stores bundles of trust domains that have none yet.
func (s *BundleService) BatchCreateFederatedBundle(ctx context.Context, req *bundlev1.BatchCreateFederatedBundleRequest) (*bundlev1.BatchCreateFederatedBundleResponse, error) {
	resp := &bundlev1.BatchCreateFederatedBundleResponse{}
	w := federatedWrite{doing: "creating", write: s.stored(store.ModeCreate), exists: "bundle already exists", failed: "unable to create bundle"}
	return resp, s.each(ctx, w, req.GetBundle(), req.GetOutputMask(), func(st *types.Status, b *types.Bundle) {
		resp.Results = append(resp.Results, &bundlev1.BatchCreateFederatedBundleResponse_Result{Status: st, Bundle: b})
	})
}

// BatchSetFederatedBundle stores bundles, in place of those there are.
func (s *BundleService) BatchSetFederatedBundle(ctx context.Context, req *bundlev1.BatchSetFederatedBundleRequest) (*bundlev1.BatchSetFederatedBundleResponse, error) {
	resp := &bundlev1.BatchSetFederatedBundleResponse{}
	w := federatedWrite{doing: "setting", write: s.stored(store.ModeSet), failed: "failed to set bundle"}
	return resp, s.each(ctx, w, req.GetBundle(), req.GetOutputMask(), func(st *types.Status, b *types.Bundle) {
		resp.Results = append(resp.Results, &bundlev1.BatchSetFederatedBundleResponse_Result{Status: st, Bundle: b})
	})
}

// BatchUpdateFederatedBundle replaces the masked parts of bundles there are.
func (s *BundleService) BatchUpdateFederatedBundle(ctx context.Context, req *bundlev1.BatchUpdateFederatedBundleRequest) (*bundlev1.BatchUpdateFederatedBundleResponse, error) {
	resp := &bundlev1.BatchUpdateFederatedBundleResponse{}
	update := func(ctx context.Context, td spiffeid.TrustDomain, with *types.Bundle) (*types.Bundle, store.Revision, error) {
		return s.deps.Store.UpdateFederatedBundle(ctx, td, func(b *types.Bundle) error {
			copyBundle(b, with, req.GetInputMask())
			return nil
		})
	}
	w := federatedWrite{doing: "updating", write: update, absent: "bundle not found", failed: "failed to update bundle"}
	return resp, s.each(ctx, w, req.GetBundle(), req.GetOutputMask(), func(st *types.Status, b *types.Bundle) {
		resp.Results = append(resp.Results, &bundlev1.BatchUpdateFederatedBundleResponse_Result{Status: st, Bundle: b})
	})
}

// BatchDeleteFederatedBundle deletes bundles, and does with the entries that
// federate with them what the mode says.
func (s *BundleService) BatchDeleteFederatedBundle(ctx context.Context, req *bundlev1.BatchDeleteFederatedBundleRequest) (*bundlev1.BatchDeleteFederatedBundleResponse, error) {
	if err := knownMatch(int32(req.GetMode()), bundlev1.BatchDeleteFederatedBundleRequest_Mode_name); err != nil {
		return nil, statusError(codes.InvalidArgument, "failed to parse deletion mode: unhandled delete mode "+req.GetMode().String(), nil)
	}
	room, err := batchBudget(req.GetTrustDomains())
	if err != nil {
		return nil, err
	}
	resp := &bundlev1.BatchDeleteFederatedBundleResponse{}
	var rev store.Revision
	for _, name := range req.GetTrustDomains() {
		done, st := s.deleteFederated(ctx, name, store.DeleteMode(req.GetMode()))
		rev = max(rev, done)
		resp.Results = append(resp.Results, &bundlev1.BatchDeleteFederatedBundleResponse_Result{TrustDomain: name, Status: room.status(st)})
	}
	if err := s.deps.Registry.Wait(ctx, rev); err != nil {
		return nil, statusError(codes.Internal, "failed to delete federated bundle", err)
	}
	return resp, nil
}

func (s *BundleService) deleteFederated(ctx context.Context, name string, mode store.DeleteMode) (store.Revision, *types.Status) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return 0, itemStatus(codes.InvalidArgument, "trust domain argument is not valid", err)
	}
	if td == s.deps.TrustDomain {
		return 0, itemStatus(codes.InvalidArgument, "removing the bundle for the server trust domain is not allowed", nil)
	}
	rev, err := s.deps.Store.DeleteFederatedBundle(ctx, td, mode)
	switch {
	case err == nil:
		return rev, itemOK()
	case errors.Is(err, store.ErrNotFound):
		return rev, itemStatus(codes.NotFound, "bundle not found", nil)
	case errors.Is(err, store.ErrInUse):
		return rev, itemStatus(codes.FailedPrecondition, "failed to delete federated bundle", err)
	default:
		return rev, itemStatus(storeCode(err), "failed to delete federated bundle", err)
	}
}

// bundle returns b, masked, or its name alone where there is no room for the rest.
func (b *budget) bundle(bundle *types.Bundle, mask *types.BundleMask) *types.Bundle {
	p := maskBundle(bundle, mask)
	if !b.take(p) {
		return &types.Bundle{TrustDomain: bundle.GetTrustDomain()}
	}
	return p
}
