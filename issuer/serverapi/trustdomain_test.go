package serverapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

func webRelationship(name string) *types.FederationRelationship {
	return &types.FederationRelationship{
		TrustDomain: name, BundleEndpointUrl: "https://" + name + "/bundle",
		BundleEndpointProfile: &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}},
	}
}

func spiffeRelationship(name string) *types.FederationRelationship {
	r := webRelationship(name)
	r.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{
		HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: "spiffe://" + name + "/spire/server"},
	}
	return r
}

func wantRelationship(t *testing.T, got, want *types.FederationRelationship) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("relationship (-want +got):\n%s", diff)
	}
}

func TestFederationRelationships(t *testing.T) {
	r := newBundleRig(t)
	ctx := t.Context()
	c := trustdomainv1.NewTrustDomainClient(r.local())
	withBundle := webRelationship("a.test")
	withBundle.TrustDomainBundle = r.foreignBundle("a.test")
	wrongBundle := webRelationship("c.test")
	wrongBundle.TrustDomainBundle = r.foreignBundle("d.test")
	noProfile := &types.FederationRelationship{TrustDomain: "c.test", BundleEndpointUrl: "https://c.test"}
	url := func(u string) *types.FederationRelationship {
		bad := webRelationship("c.test")
		bad.BundleEndpointUrl = u
		return bad
	}
	relationships := []*types.FederationRelationship{
		withBundle, spiffeRelationship("b.test"), withBundle, webRelationship("lanyard.test"),
		webRelationship("no name"), wrongBundle, noProfile, url("http://c.test"), url("https:///x"), url("https://u@c.test"),
	}
	created, err := c.BatchCreateFederationRelationship(ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{FederationRelationships: relationships})
	must(t, err)
	wantRelationship(t, created.Results[0].FederationRelationship, withBundle)
	wantRelationship(t, created.Results[1].FederationRelationship, spiffeRelationship("b.test"))
	for i, want := range []struct {
		code codes.Code
		text string
	}{
		{codes.OK, "OK"},
		{codes.OK, "OK"},
		{codes.AlreadyExists, "failed to create federation relationship: federation relationship a.test: already exists"},
		{codes.InvalidArgument, "unable to create federation relationship for server trust domain"},
		{codes.InvalidArgument, "failed to convert federation relationship: failed to parse trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"},
		{codes.InvalidArgument, `failed to convert federation relationship: trust domain bundle ("d.test") must match the trust domain of the federation relationship ("c.test")`},
		{codes.InvalidArgument, "failed to convert federation relationship: unsupported bundle endpoint profile type: <nil>"},
		{codes.InvalidArgument, "failed to convert federation relationship: bundle endpoint URL must use the https scheme"},
		{codes.InvalidArgument, "failed to convert federation relationship: bundle endpoint URL must specify the host"},
		{codes.InvalidArgument, "failed to convert federation relationship: bundle endpoint URL must not contain user info"},
	} {
		wantItem(t, created.Results[i].Status, want.code, want.text)
	}

	got, err := c.GetFederationRelationship(ctx, &trustdomainv1.GetFederationRelationshipRequest{
		TrustDomain: "a.test", OutputMask: &types.FederationRelationshipMask{TrustDomainBundle: true},
	})
	must(t, err)
	wantRelationship(t, got, &types.FederationRelationship{TrustDomain: "a.test", TrustDomainBundle: withBundle.TrustDomainBundle})
	_, err = c.GetFederationRelationship(ctx, &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: "z.test"})
	wantStatus(t, err, codes.NotFound, "federation relationship does not exist")

	moved := spiffeRelationship("a.test")
	moved.BundleEndpointUrl = "https://elsewhere.test"
	updated, err := c.BatchUpdateFederationRelationship(ctx, &trustdomainv1.BatchUpdateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{moved, webRelationship("z.test")},
		InputMask:               &types.FederationRelationshipMask{BundleEndpointUrl: true},
	})
	must(t, err)
	withBundle.BundleEndpointUrl = moved.BundleEndpointUrl
	wantRelationship(t, updated.Results[0].FederationRelationship, withBundle)
	wantItem(t, updated.Results[1].Status, codes.NotFound, "federation relationship not found")

	testRelationshipPages(t, c)

	deleted, err := c.BatchDeleteFederationRelationship(ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{TrustDomains: []string{"a.test", "z.test", "", "no name"}})
	must(t, err)
	wantItem(t, deleted.Results[0].Status, codes.OK, "OK")
	wantItem(t, deleted.Results[1].Status, codes.NotFound, "federation relationship not found")
	wantItem(t, deleted.Results[2].Status, codes.InvalidArgument, "missing trust domain")
	wantItem(t, deleted.Results[3].Status, codes.InvalidArgument, "failed to parse trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores")
	if _, ok := r.deps.Registry.FederatedBundle(spiffeid.RequireTrustDomainFromString("a.test")); !ok {
		t.Error("the bundle went with the relationship")
	}
}

func testRelationshipPages(t *testing.T, c trustdomainv1.TrustDomainClient) {
	t.Helper()
	req := &trustdomainv1.ListFederationRelationshipsRequest{PageSize: 1, OutputMask: &types.FederationRelationshipMask{}}
	for _, want := range []string{"[trust_domain:\"a.test\"]", "[trust_domain:\"b.test\"]", "[]"} {
		page, err := c.ListFederationRelationships(t.Context(), req)
		must(t, err)
		if got := fmt.Sprint(page.FederationRelationships); got != want {
			t.Errorf("page %s, want %s", got, want)
		}
		req.PageToken = page.NextPageToken
	}
	if req.PageToken != "" {
		t.Error("an empty page has a token")
	}
	req.PageToken = "7"
	_, err := c.ListFederationRelationships(t.Context(), req)
	wantStatus(t, err, codes.InvalidArgument, `malformed page token: "7" is not a token of this issuer: begin again without one`)
}

func TestRefreshBundle(t *testing.T) {
	outcome := map[string]error{"a.test": nil, "b.test": errors.New("no answer"), "c.test": store.ErrNotFound}
	r := newRigWith(t, func(d *Deps) {
		d.Refresh = func(_ context.Context, td spiffeid.TrustDomain) error { return outcome[td.Name()] }
	})
	c := trustdomainv1.NewTrustDomainClient(r.local())
	refresh := func(name string) error {
		_, err := c.RefreshBundle(t.Context(), &trustdomainv1.RefreshBundleRequest{TrustDomain: name})
		return err
	}
	must(t, refresh("a.test"))
	wantStatus(t, refresh("b.test"), codes.Internal, "failed to refresh bundle: no answer")
	wantStatus(t, refresh("c.test"), codes.NotFound, `no relationship with trust domain "c.test"`)
	wantStatus(t, refresh(""), codes.InvalidArgument, "failed to parse trust domain: trust domain is missing")

	c = trustdomainv1.NewTrustDomainClient(newRig(t).local())
	wantStatus(t, refresh("a.test"), codes.NotFound, `no relationship with trust domain "a.test"`)
	_, err := c.BatchCreateFederationRelationship(t.Context(), &trustdomainv1.BatchCreateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{webRelationship("a.test")},
	})
	must(t, err)
	wantStatus(t, refresh("a.test"), codes.Unimplemented, "this issuer does not fetch bundles of other trust domains: set them with bundle set")
}
