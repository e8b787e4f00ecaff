package conformance

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

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
