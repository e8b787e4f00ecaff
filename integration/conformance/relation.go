package conformance

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func relationChecks() []Check {
	return []Check{
		{"relationship/create", createRelation},
		{"relationship/create refused", createRelationRefused},
		{"relationship/get", getRelation},
		{"relationship/update", updateRelation},
		{"relationship/update refused", updateRelationRefused},
		{"relationship/delete", deleteRelation},
		{"relationship/list pages", listRelations},
		{"relationship/list refused", listRelationsRefused},
		{"relationship/refresh", refreshBundle},
	}
}

// webRelation is a relationship with a trust domain that no other check has.
func (c *C) webRelation() *types.FederationRelationship {
	return &types.FederationRelationship{
		TrustDomain: c.unique("related") + ".test", BundleEndpointUrl: "https://127.0.0.1:1/bundle",
		BundleEndpointProfile: &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}},
	}
}

func (c *C) spiffeRelation() *types.FederationRelationship {
	r := c.webRelation()
	r.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{
		HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: "spiffe://" + r.TrustDomain + "/spire/server"},
	}
	return r
}

func (c *C) relate(mask *types.FederationRelationshipMask, r ...*types.FederationRelationship) []*trustdomainv1.BatchCreateFederationRelationshipResponse_Result {
	c.Helper()
	resp, err := c.domains.BatchCreateFederationRelationship(c.ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{
		FederationRelationships: r, OutputMask: mask,
	})
	c.must(err)
	if len(resp.Results) != len(r) {
		c.Fatalf("%d results for %d relationships", len(resp.Results), len(r))
	}
	return resp.Results
}

func (c *C) getRelation(td string) (*types.FederationRelationship, error) {
	return c.domains.GetFederationRelationship(c.ctx, &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: td})
}

// sameRelation compares relationships; the profile of no fields may be absent on the way back.
func (c *C) sameRelation(what string, got, want *types.FederationRelationship) {
	c.Helper()
	got, want = proto.Clone(got).(*types.FederationRelationship), proto.Clone(want).(*types.FederationRelationship)
	if web, ok := got.GetBundleEndpointProfile().(*types.FederationRelationship_HttpsWeb); ok && web.HttpsWeb == nil {
		web.HttpsWeb = &types.HTTPSWebProfile{}
	}
	c.equal(what, got, want)
}

func createRelation(c *C) {
	web, spiffe, withBundle := c.webRelation(), c.spiffeRelation(), c.webRelation()
	withBundle.TrustDomainBundle = c.foreignDomain()
	withBundle.TrustDomainBundle.TrustDomain = withBundle.TrustDomain
	all := []*types.FederationRelationship{web, spiffe, withBundle}
	for i, r := range c.relate(nil, all...) {
		c.mustOK(r.Status)
		c.sameRelation("created", r.FederationRelationship, all[i])
		got, err := c.getRelation(all[i].TrustDomain)
		c.must(err)
		c.sameRelation("stored", got, all[i])
	}
	got, err := c.getFederated(withBundle.TrustDomain)
	c.must(err)
	c.equal("its bundle among the federated ones", got, withBundle.TrustDomainBundle)
	third := c.spiffeRelation()
	masked := c.relate(&types.FederationRelationshipMask{BundleEndpointUrl: true}, third)[0]
	c.mustOK(masked.Status)
	c.sameRelation("masked", masked.FederationRelationship, &types.FederationRelationship{
		TrustDomain: third.TrustDomain, BundleEndpointUrl: third.BundleEndpointUrl,
	})
}

func createRelationRefused(c *C) {
	for text, change := range map[string]func(r *types.FederationRelationship){
		"failed to parse trust domain: …":                               func(r *types.FederationRelationship) { r.TrustDomain = "no domain" },
		"bundle endpoint URL must use the https scheme":                 func(r *types.FederationRelationship) { r.BundleEndpointUrl = "http://a.test" },
		"bundle endpoint URL must use the https scheme ":                func(r *types.FederationRelationship) { r.BundleEndpointUrl = "" },
		"bundle endpoint URL must specify the host":                     func(r *types.FederationRelationship) { r.BundleEndpointUrl = "https:///bundle" },
		"bundle endpoint URL must not contain user info":                func(r *types.FederationRelationship) { r.BundleEndpointUrl = "https://u:p@a.test" },
		"failed to parse bundle endpoint URL: …":                        func(r *types.FederationRelationship) { r.BundleEndpointUrl = "https://a.test:x" },
		"unsupported bundle endpoint profile type: <nil>":               func(r *types.FederationRelationship) { r.BundleEndpointProfile = nil },
		"failed to parse endpoint SPIFFE ID: …":                         func(r *types.FederationRelationship) { setEndpointID(r, "no ID") },
		"failed to parse endpoint SPIFFE ID: cannot be empty":           func(r *types.FederationRelationship) { setEndpointID(r, "") },
		"trust domain bundle (\"other.test\") must match the trust do…": func(r *types.FederationRelationship) { r.TrustDomainBundle = foreignBundle("other.test") },
		"failed to parse bundle: invalid trust domain: …":               func(r *types.FederationRelationship) { r.TrustDomainBundle = &types.Bundle{} },
	} {
		bad, good := c.webRelation(), c.webRelation()
		change(bad)
		results := c.relate(nil, bad, good)
		if text[len(text)-1] == ' ' {
			text = text[:len(text)-1]
		}
		c.status(results[0].Status, codes.InvalidArgument, "failed to convert federation relationship: "+text)
		c.ok(results[1].Status)
	}
	own := c.webRelation()
	own.TrustDomain = c.td.Name()
	c.status(c.relate(nil, own)[0].Status, codes.InvalidArgument, "unable to create federation relationship for server trust domain")
	twice := c.webRelation()
	results := c.relate(nil, twice, twice)
	c.ok(results[0].Status)
	if c.Differs("relationship: exists") {
		c.status(results[1].Status, codes.AlreadyExists, "…")
	} else {
		c.status(results[1].Status, codes.Internal, "failed to create federation relationship: …")
	}
}

func setEndpointID(r *types.FederationRelationship, id string) {
	r.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: id}}
}

func getRelation(c *C) {
	_, err := c.getRelation("unheard-of.test")
	c.refused(err, codes.NotFound, "federation relationship does not exist")
	_, err = c.getRelation("no domain")
	c.refused(err, codes.InvalidArgument, "failed to parse trust domain: …")
	r := c.spiffeRelation()
	c.mustOK(c.relate(nil, r)[0].Status)
	for _, row := range []struct {
		mask *types.FederationRelationshipMask
		want *types.FederationRelationship
	}{
		{&types.FederationRelationshipMask{}, &types.FederationRelationship{}},
		{&types.FederationRelationshipMask{BundleEndpointUrl: true}, &types.FederationRelationship{BundleEndpointUrl: r.BundleEndpointUrl}},
		{&types.FederationRelationshipMask{BundleEndpointProfile: true}, &types.FederationRelationship{BundleEndpointProfile: r.BundleEndpointProfile}},
		{&types.FederationRelationshipMask{TrustDomainBundle: true}, &types.FederationRelationship{}},
	} {
		got, err := c.domains.GetFederationRelationship(c.ctx, &trustdomainv1.GetFederationRelationshipRequest{
			TrustDomain: r.TrustDomain, OutputMask: row.mask,
		})
		c.must(err)
		row.want.TrustDomain = r.TrustDomain
		c.sameRelation(row.mask.String(), got, row.want)
	}
}

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
