package takeover

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// bundles takes the bundles of federated trust domains. One that is here already is replaced by a later one only.
func (m *move) bundles(ctx context.Context) error {
	theirs, err := federatedBundles(ctx, m.from.bundle)
	if err != nil {
		return err
	}
	ours, err := federatedBundles(ctx, m.to.bundle)
	if err != nil {
		return err
	}
	have := map[string]*types.Bundle{}
	for _, b := range ours {
		have[b.TrustDomain] = b
	}
	p := m.report.part("federated bundles")
	bar := m.Progress("federated bundles", len(theirs))
	defer bar.End()
	for _, b := range theirs {
		bar.Add(1)
		here, count := have[b.TrustDomain], &p.Taken
		switch {
		case here != nil && sameBundle(here, b):
			p.Present++
			continue
		case here != nil && here.SequenceNumber >= b.SequenceNumber:
			p.skip(b.TrustDomain, "another bundle is here already, and not an older one")
			continue
		case here != nil:
			count = &p.Updated
		}
		if m.DryRun {
			*count++
			continue
		}
		resp, err := m.to.bundle.BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{b}, OutputMask: &types.BundleMask{}})
		if err != nil {
			return fmt.Errorf("of %s: %w", b.TrustDomain, err)
		}
		for _, r := range resp.Results {
			p.result(b.TrustDomain, r.Status, count)
		}
	}
	return nil
}

func federatedBundles(ctx context.Context, c bundlev1.BundleClient) ([]*types.Bundle, error) {
	return all(func(token string) ([]*types.Bundle, string, error) {
		page, err := c.ListFederatedBundles(ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: pageSize, PageToken: token})
		return page.GetBundles(), page.GetNextPageToken(), err
	})
}

// sameBundle compares what is in bundles, but for how they are numbered and refreshed.
func sameBundle(a, b *types.Bundle) bool {
	return proto.Equal(&types.Bundle{X509Authorities: a.X509Authorities, JwtAuthorities: a.JwtAuthorities},
		&types.Bundle{X509Authorities: b.X509Authorities, JwtAuthorities: b.JwtAuthorities})
}

// relationships takes where the bundles come from.
func (m *move) relationships(ctx context.Context) error {
	theirs, err := relationships(ctx, m.from.domain)
	if err != nil {
		return err
	}
	ours, err := relationships(ctx, m.to.domain)
	if err != nil {
		return err
	}
	have := map[string]*types.FederationRelationship{}
	for _, fr := range ours {
		have[fr.TrustDomain] = fr
	}
	p := m.report.part("federation relationships")
	var missing []*types.FederationRelationship
	for _, fr := range theirs {
		switch here := have[fr.TrustDomain]; {
		case here == nil:
			missing = append(missing, fr)
		case proto.Equal(here, fr):
			p.Present++
		default:
			p.skip(fr.TrustDomain, "another relationship is here already: \"lanyard issuer federation show -trustDomain %s\"", fr.TrustDomain)
		}
	}
	m.report.note("federation relationships from the file of the other issuer are not in its API: carry federates_with blocks over by hand")
	if m.DryRun || len(missing) == 0 {
		p.Taken = len(missing)
		return nil
	}
	for _, batch := range chunks(missing) {
		resp, err := m.to.domain.BatchCreateFederationRelationship(ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{FederationRelationships: batch})
		if err != nil {
			return err
		}
		for i, r := range resp.Results {
			p.result(batch[min(i, len(batch)-1)].TrustDomain, r.Status, &p.Taken)
		}
	}
	return nil
}

// relationships are listed without their bundles, which are a part of their own.
func relationships(ctx context.Context, c trustdomainv1.TrustDomainClient) ([]*types.FederationRelationship, error) {
	return all(func(token string) ([]*types.FederationRelationship, string, error) {
		page, err := c.ListFederationRelationships(ctx, &trustdomainv1.ListFederationRelationshipsRequest{
			PageSize: pageSize, PageToken: token, OutputMask: &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
		})
		return page.GetFederationRelationships(), page.GetNextPageToken(), err
	})
}
