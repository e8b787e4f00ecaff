package conformance

import (
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func federatedChecks() []Check {
	return []Check{
		{"federated bundle/create", createFederated},
		{"federated bundle/update", updateFederated},
		{"federated bundle/set", setFederated},
		{"federated bundle/get", getFederated},
		{"federated bundle/malformed", malformedFederated},
		{"federated bundle/list pages", listFederatedPages},
		{"federated bundle/list refused", listFederatedRefused},
		{"federated bundle/delete", deleteFederated},
		{"federated bundle/delete restricted", deleteRestricted},
		{"federated bundle/delete with entries", deleteWithEntries},
		{"federated bundle/delete and dissociate", deleteDissociate},
	}
}

// domain is the name of a trust domain that no other check has, and its bundle.
func (c *C) foreignDomain() *types.Bundle {
	c.Helper()
	td := c.unique("foreign") + ".test"
	b := foreignBundle(td, testca.New(c.T, td).Cert)
	b.JwtAuthorities = []*types.JWTKey{c.jwtKey()}
	return b
}

func (c *C) getFederated(td string) (*types.Bundle, error) {
	return c.bundles.GetFederatedBundle(c.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: td})
}

func createFederated(c *C) {
	b, second := c.foreignDomain(), c.foreignDomain()
	create := func(mask *types.BundleMask, bundles ...*types.Bundle) []*bundlev1.BatchCreateFederatedBundleResponse_Result {
		resp, err := c.bundles.BatchCreateFederatedBundle(c.ctx, &bundlev1.BatchCreateFederatedBundleRequest{Bundle: bundles, OutputMask: mask})
		c.must(err)
		if len(resp.Results) != len(bundles) {
			c.Fatalf("%d results for %d bundles", len(resp.Results), len(bundles))
		}
		return resp.Results
	}
	results := create(nil, b, b, &types.Bundle{TrustDomain: "no domain"}, &types.Bundle{TrustDomain: c.td.Name()}, second)
	c.ok(results[0].Status)
	c.equal("created", results[0].Bundle, b)
	c.status(results[1].Status, codes.AlreadyExists, "bundle already exists")
	c.status(results[2].Status, codes.InvalidArgument, "trust domain argument is not valid: …")
	c.status(results[3].Status, codes.InvalidArgument, "creating a federated bundle for the server's own trust domain is not allowed")
	c.ok(results[4].Status)
	for _, i := range []int{1, 2, 3} {
		c.equal("bundle of a refused item", results[i].Bundle, (*types.Bundle)(nil))
	}
	got, err := c.getFederated(b.TrustDomain)
	c.must(err)
	c.equal("stored", got, b)
	masked := create(&types.BundleMask{RefreshHint: true}, c.foreignDomain())[0]
	c.ok(masked.Status)
	c.equal("masked", masked.Bundle, &types.Bundle{TrustDomain: masked.Bundle.TrustDomain, RefreshHint: 60})
	c.equal("results of nothing", len(create(nil)), 0)
}

// updateFederated replaces what the mask names.
func updateFederated(c *C) {
	b := c.foreignDomain()
	update := func(in, out *types.BundleMask, b *types.Bundle) *bundlev1.BatchUpdateFederatedBundleResponse_Result {
		resp, err := c.bundles.BatchUpdateFederatedBundle(c.ctx, &bundlev1.BatchUpdateFederatedBundleRequest{
			Bundle: []*types.Bundle{b}, InputMask: in, OutputMask: out,
		})
		c.must(err)
		return resp.Results[0]
	}
	c.status(update(nil, nil, b).Status, codes.NotFound, "bundle not found")
	c.status(update(nil, nil, &types.Bundle{TrustDomain: "no domain"}).Status, codes.InvalidArgument, "trust domain argument is not valid: …")
	c.status(update(nil, nil, &types.Bundle{TrustDomain: c.td.Name()}).Status, codes.InvalidArgument,
		"updating a federated bundle for the server's own trust domain is not allowed")
	c.federate(b.TrustDomain)
	next := c.foreignDomain()
	next.TrustDomain, next.SequenceNumber, next.RefreshHint = b.TrustDomain, 99, 120
	got := update(&types.BundleMask{RefreshHint: true}, nil, next)
	c.ok(got.Status)
	want := foreignBundle(b.TrustDomain)
	want.RefreshHint = 120
	c.equal("with a mask of one field", got.Bundle, want)
	got = update(&types.BundleMask{X509Authorities: true, JwtAuthorities: true}, &types.BundleMask{X509Authorities: true}, next)
	c.ok(got.Status)
	c.equal("masked answer", got.Bundle, &types.Bundle{TrustDomain: b.TrustDomain, X509Authorities: next.X509Authorities})
	got = update(nil, nil, next)
	c.ok(got.Status)
	c.equal("without a mask", got.Bundle, next)
}

// setFederated creates or replaces.
func setFederated(c *C) {
	b := c.foreignDomain()
	set := func(mask *types.BundleMask, bundles ...*types.Bundle) []*bundlev1.BatchSetFederatedBundleResponse_Result {
		resp, err := c.bundles.BatchSetFederatedBundle(c.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: bundles, OutputMask: mask})
		c.must(err)
		return resp.Results
	}
	next := c.foreignDomain()
	next.TrustDomain, next.SequenceNumber = b.TrustDomain, 3
	results := set(nil, b, next, &types.Bundle{TrustDomain: "no domain"}, &types.Bundle{TrustDomain: c.td.Name()})
	c.ok(results[0].Status)
	c.equal("created", results[0].Bundle, b)
	c.ok(results[1].Status)
	c.equal("replaced", results[1].Bundle, next)
	c.status(results[2].Status, codes.InvalidArgument, "trust domain argument is not valid: …")
	c.status(results[3].Status, codes.InvalidArgument, "setting a federated bundle for the server's own trust domain is not allowed")
	got, err := c.getFederated(b.TrustDomain)
	c.must(err)
	c.equal("stored", got, next)
	c.equal("masked", set(&types.BundleMask{SequenceNumber: true}, b)[0].Bundle, &types.Bundle{TrustDomain: b.TrustDomain, SequenceNumber: 7})
}

func getFederated(c *C) {
	_, err := c.getFederated("unheard-of.test")
	c.refused(err, codes.NotFound, "bundle not found")
	_, err = c.getFederated("no domain")
	c.refused(err, codes.InvalidArgument, "trust domain argument is not valid: …")
	_, err = c.getFederated(c.td.Name())
	c.refused(err, codes.InvalidArgument, "getting a federated bundle for the server's own trust domain is not allowed")
	b := c.foreignDomain()
	c.federate(b.TrustDomain)
	want := foreignBundle(b.TrustDomain)
	agent := bundlev1.NewBundleClient(c.join().conn)
	got, err := agent.GetFederatedBundle(c.ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: b.TrustDomain})
	c.must(err)
	c.equal("as an agent", got, want)
	got, err = agent.GetFederatedBundle(c.ctx, &bundlev1.GetFederatedBundleRequest{
		TrustDomain: "spiffe://" + b.TrustDomain, OutputMask: &types.BundleMask{SequenceNumber: true},
	})
	c.must(err)
	c.equal("by an ID, masked", got, &types.Bundle{TrustDomain: b.TrustDomain, SequenceNumber: 7})
}

// malformedFederated is authorities that are none.
func malformedFederated(c *C) {
	td := c.foreignDomain().TrustDomain
	for text, b := range map[string]*types.Bundle{
		"unable to parse X.509 authority: …": {X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}},
		"unable to parse JWT authority: …":   {JwtAuthorities: []*types.JWTKey{{PublicKey: []byte("x"), KeyId: "k"}}},
	} {
		b.TrustDomain = td
		text = "failed to convert bundle: " + text
		created, err := c.bundles.BatchCreateFederatedBundle(c.ctx, &bundlev1.BatchCreateFederatedBundleRequest{Bundle: []*types.Bundle{b}})
		c.must(err)
		c.status(created.Results[0].Status, codes.InvalidArgument, text)
		updated, err := c.bundles.BatchUpdateFederatedBundle(c.ctx, &bundlev1.BatchUpdateFederatedBundleRequest{Bundle: []*types.Bundle{b}})
		c.must(err)
		c.status(updated.Results[0].Status, codes.InvalidArgument, text)
		set, err := c.bundles.BatchSetFederatedBundle(c.ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{b}})
		c.must(err)
		c.status(set.Results[0].Status, codes.InvalidArgument, text)
	}
}

// listFederatedPages turns the pages: SPIRE leaves the own bundle out of the page that it was read in.
func listFederatedPages(c *C) {
	want := map[string]bool{}
	for range 3 {
		b := c.foreignDomain()
		c.federate(b.TrustDomain)
		want[b.TrustDomain] = true
	}
	token, seen := "", map[string]bool{}
	for range 200 {
		page, err := c.bundles.ListFederatedBundles(c.ctx, &bundlev1.ListFederatedBundlesRequest{
			PageSize: 2, PageToken: token, OutputMask: &types.BundleMask{RefreshHint: true},
		})
		c.must(err)
		for _, b := range page.Bundles {
			if seen[b.TrustDomain] || b.TrustDomain == c.td.Name() || len(b.X509Authorities) > 0 {
				c.Errorf("twice, our own, or past the mask: %v", b)
			}
			seen[b.TrustDomain] = true
		}
		if len(page.Bundles) > 2 {
			c.Errorf("a page of %d", len(page.Bundles))
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	for td := range want {
		if !seen[td] {
			c.Errorf("%s is on no page", td)
		}
	}
	all, err := c.bundles.ListFederatedBundles(c.ctx, &bundlev1.ListFederatedBundlesRequest{})
	c.must(err)
	c.equal("bundles without pages", len(all.Bundles), len(seen))
}

func listFederatedRefused(c *C) {
	_, err := c.bundles.ListFederatedBundles(c.ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: 1, PageToken: "not a token"})
	c.badToken("list bundles: page token", err, "failed to list bundles: …")
}
