package conformance

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func (c *C) updateRelation(in, out *types.FederationRelationshipMask, r *types.FederationRelationship) *trustdomainv1.BatchUpdateFederationRelationshipResponse_Result {
	c.Helper()
	resp, err := c.domains.BatchUpdateFederationRelationship(c.ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{r}, InputMask: in, OutputMask: out,
	})
	c.must(err)
	return resp.Results[0]
}

func updateRelation(c *C) {
	r, next := c.webRelation(), c.spiffeRelation()
	c.mustOK(c.relate(nil, r)[0].Status)
	next.TrustDomain, next.BundleEndpointUrl = r.TrustDomain, "https://b.test/other"
	result := c.updateRelation(&types.FederationRelationshipMask{BundleEndpointUrl: true}, nil, next)
	c.mustOK(result.Status)
	want := proto.Clone(r).(*types.FederationRelationship)
	want.BundleEndpointUrl = next.BundleEndpointUrl
	c.sameRelation("with a mask of one field", result.FederationRelationship, want)
	result = c.updateRelation(nil, &types.FederationRelationshipMask{BundleEndpointProfile: true}, next)
	c.mustOK(result.Status)
	c.sameRelation("masked answer", result.FederationRelationship, &types.FederationRelationship{
		TrustDomain: r.TrustDomain, BundleEndpointProfile: next.BundleEndpointProfile,
	})
	got, err := c.getRelation(r.TrustDomain)
	c.must(err)
	c.sameRelation("stored", got, next)
	next.TrustDomainBundle = c.foreignDomain()
	next.TrustDomainBundle.TrustDomain = r.TrustDomain
	result = c.updateRelation(nil, nil, next)
	c.mustOK(result.Status)
	c.sameRelation("with a bundle", result.FederationRelationship, next)
	got2, err := c.getFederated(r.TrustDomain)
	c.must(err)
	c.equal("its bundle among the federated ones", got2, next.TrustDomainBundle)
}

func updateRelationRefused(c *C) {
	result := c.updateRelation(nil, nil, c.webRelation())
	if c.Differs("relationship: update of none") {
		c.status(result.Status, codes.NotFound, "…")
	} else {
		c.status(result.Status, codes.Internal, "failed to update federation relationship: …")
	}
	c.equal("relationship of a refused item", result.FederationRelationship, (*types.FederationRelationship)(nil))
	r := c.webRelation()
	r.BundleEndpointUrl = "http://a.test"
	c.status(c.updateRelation(nil, nil, r).Status, codes.InvalidArgument,
		"failed to convert federation relationship: bundle endpoint URL must use the https scheme")
}

func deleteRelation(c *C) {
	r := c.webRelation()
	r.TrustDomainBundle = foreignBundle(r.TrustDomain)
	c.mustOK(c.relate(nil, r)[0].Status)
	resp, err := c.domains.BatchDeleteFederationRelationship(c.ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{
		TrustDomains: []string{r.TrustDomain, r.TrustDomain, "", "no domain"},
	})
	c.must(err)
	c.ok(resp.Results[0].Status)
	c.equal("trust domain of the result", resp.Results[0].TrustDomain, r.TrustDomain)
	c.status(resp.Results[1].Status, codes.NotFound, "federation relationship not found")
	c.status(resp.Results[2].Status, codes.InvalidArgument, "missing trust domain")
	c.status(resp.Results[3].Status, codes.InvalidArgument, "failed to parse trust domain: …")
	c.equal("trust domain of the result", resp.Results[3].TrustDomain, "no domain")
	_, err = c.getRelation(r.TrustDomain)
	c.refused(err, codes.NotFound, "federation relationship does not exist")
	_, err = c.bundles.GetFederatedBundle(c.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: r.TrustDomain})
	c.must(err) // the bundle stays
}

func listRelations(c *C) {
	want := map[string]*types.FederationRelationship{}
	for range 3 {
		r := c.spiffeRelation()
		c.mustOK(c.relate(nil, r)[0].Status)
		want[r.TrustDomain] = r
	}
	token, found, total := "", 0, 0
	for range 200 {
		page, err := c.domains.ListFederationRelationships(c.ctx, &trustdomainv1.ListFederationRelationshipsRequest{PageSize: 2, PageToken: token})
		c.must(err)
		for _, r := range page.FederationRelationships {
			if total++; want[r.TrustDomain] != nil {
				c.sameRelation("listed", r, want[r.TrustDomain])
				found++
			}
		}
		if token = page.NextPageToken; token == "" {
			c.equal("relationships on the last page", len(page.FederationRelationships), 0)
			break
		}
	}
	c.equal("found", found, len(want))
	all, err := c.domains.ListFederationRelationships(c.ctx, &trustdomainv1.ListFederationRelationshipsRequest{OutputMask: &types.FederationRelationshipMask{}})
	c.must(err)
	c.equal("relationships without pages", len(all.FederationRelationships), total)
	if first := all.FederationRelationships[0]; first.BundleEndpointUrl != "" || first.BundleEndpointProfile != nil {
		c.Errorf("past the mask: %v", first)
	}
}

func listRelationsRefused(c *C) {
	_, err := c.domains.ListFederationRelationships(c.ctx, &trustdomainv1.ListFederationRelationshipsRequest{PageSize: 1, PageToken: "not a token"})
	c.badToken("list relationships: page token", err, "failed to list federation relationships: …")
}

func refreshBundle(c *C) {
	refresh := func(td string) error {
		_, err := c.domains.RefreshBundle(c.ctx, &trustdomainv1.RefreshBundleRequest{TrustDomain: td})
		return err
	}
	c.refused(refresh("unheard-of.test"), codes.NotFound, `no relationship with trust domain "unheard-of.test"`)
	c.refused(refresh("no domain"), codes.InvalidArgument, "failed to parse trust domain: …")
	r := c.webRelation()
	c.mustOK(c.relate(nil, r)[0].Status)
	err := refresh(r.TrustDomain) // nobody listens there
	if c.Differs("relationship: refresh") {
		c.refused(err, codes.Unimplemented, "…")
	} else {
		c.refused(err, codes.Internal, "failed to refresh bundle: …")
	}
}
