package serverapi

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// bundleRig is a served issuer and clients of its admin socket.
type bundleRig struct {
	entryRig
	bundlev1.BundleClient
}

func newBundleRig(t *testing.T) bundleRig {
	r := newEntryRig(t)
	return bundleRig{r, bundlev1.NewBundleClient(r.local())}
}

func newJWTKey(t *testing.T, id string) *types.JWTKey {
	der, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	must(t, err)
	return &types.JWTKey{PublicKey: der, KeyId: id, ExpiresAt: 4_000_000_000}
}

// foreignBundle is a valid bundle of another trust domain.
func (r bundleRig) foreignBundle(name string) *types.Bundle {
	r.t.Helper()
	return &types.Bundle{
		TrustDomain:     name,
		X509Authorities: []*types.X509Certificate{{Asn1: r.sign(spiffeID("/root")).Certificates[0].Raw}},
		JwtAuthorities:  []*types.JWTKey{newJWTKey(r.t, "k-"+name)},
		RefreshHint:     30,
		SequenceNumber:  7,
	}
}

func wantBundle(t *testing.T, got, want *types.Bundle) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("bundle (-want +got):\n%s", diff)
	}
}

func (r bundleRig) setFederated(bundles ...*types.Bundle) {
	r.t.Helper()
	resp, err := r.BatchSetFederatedBundle(r.t.Context(), &bundlev1.BatchSetFederatedBundleRequest{Bundle: bundles})
	must(r.t, err)
	for _, result := range resp.Results {
		wantItem(r.t, result.Status, codes.OK, "OK")
	}
}

func TestFederatedBundlesAreCreatedSetAndUpdated(t *testing.T) {
	r := newBundleRig(t)
	ctx := t.Context()
	a := r.foreignBundle("a.test")
	bad := &types.Bundle{TrustDomain: "bad.test", X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}}
	noKey := &types.Bundle{TrustDomain: "bad.test", JwtAuthorities: []*types.JWTKey{newJWTKey(t, "")}}
	created, err := r.BatchCreateFederatedBundle(ctx, &bundlev1.BatchCreateFederatedBundleRequest{
		Bundle: []*types.Bundle{a, a, {TrustDomain: "lanyard.test"}, {TrustDomain: "no name"}, bad, noKey},
	})
	must(t, err)
	wantBundle(t, created.Results[0].Bundle, a)
	for i, want := range []struct {
		code codes.Code
		text string
	}{
		{codes.OK, "OK"},
		{codes.AlreadyExists, "bundle already exists"},
		{codes.InvalidArgument, "creating a federated bundle for the server's own trust domain is not allowed"},
		{codes.InvalidArgument, "trust domain argument is not valid: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"},
		{codes.InvalidArgument, "failed to convert bundle: unable to parse X.509 authority: x509: malformed certificate"},
		{codes.InvalidArgument, "failed to convert bundle: unable to parse JWT authority: missing key ID"},
	} {
		wantItem(t, created.Results[i].Status, want.code, want.text)
		if i > 0 && created.Results[i].Bundle != nil {
			t.Errorf("result %d has a bundle", i)
		}
	}

	// Only what the mask names changes, sequence numbers included.
	other := r.foreignBundle("a.test")
	other.SequenceNumber, other.RefreshHint = 9, 90
	mask := &types.BundleMask{SequenceNumber: true, JwtAuthorities: true}
	updated, err := r.BatchUpdateFederatedBundle(ctx, &bundlev1.BatchUpdateFederatedBundleRequest{
		Bundle: []*types.Bundle{other, {TrustDomain: "b.test"}, {TrustDomain: "lanyard.test"}}, InputMask: mask,
	})
	must(t, err)
	wantItem(t, updated.Results[0].Status, codes.OK, "OK")
	wantItem(t, updated.Results[1].Status, codes.NotFound, "bundle not found")
	wantItem(t, updated.Results[2].Status, codes.InvalidArgument, "updating a federated bundle for the server's own trust domain is not allowed")
	want := &types.Bundle{TrustDomain: "a.test", X509Authorities: a.X509Authorities, JwtAuthorities: other.JwtAuthorities, RefreshHint: 30, SequenceNumber: 9}
	wantBundle(t, updated.Results[0].Bundle, want)
	got, err := r.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: "a.test"})
	must(t, err)
	wantBundle(t, got, want)

	// A set replaces all, and numbers may go back: they are the other domain's.
	set, err := r.BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{
		Bundle: []*types.Bundle{a, {TrustDomain: "lanyard.test"}}, OutputMask: &types.BundleMask{SequenceNumber: true},
	})
	must(t, err)
	wantBundle(t, set.Results[0].Bundle, &types.Bundle{TrustDomain: "a.test", SequenceNumber: 7})
	wantItem(t, set.Results[1].Status, codes.InvalidArgument, "setting a federated bundle for the server's own trust domain is not allowed")
	got, err = r.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: "a.test"})
	must(t, err)
	wantBundle(t, got, a)
	_, err = r.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: "b.test"})
	wantStatus(t, err, codes.NotFound, "bundle not found")
	count, err := r.CountBundles(ctx, &bundlev1.CountBundlesRequest{})
	must(t, err)
	if count.Count != 2 {
		t.Errorf("%d bundles, want 2", count.Count)
	}
}

func TestFederatedBundlesAreListedInPages(t *testing.T) {
	r := newBundleRig(t)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("d%d.test", i))
		r.setFederated(r.foreignBundle(want[i]))
	}
	for _, size := range []int32{0, 1, 2, 5, 7} {
		var got []string
		req := &bundlev1.ListFederatedBundlesRequest{PageSize: size, OutputMask: &types.BundleMask{RefreshHint: true}}
		for {
			resp, err := r.ListFederatedBundles(t.Context(), req)
			must(t, err)
			for _, b := range resp.Bundles {
				wantBundle(t, b, &types.Bundle{TrustDomain: b.TrustDomain, RefreshHint: 30})
				got = append(got, b.TrustDomain)
			}
			if req.PageToken = resp.NextPageToken; req.PageToken == "" {
				break
			}
			if len(resp.Bundles) == 0 {
				t.Fatal("an empty page has a token")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", size, got)
		}
	}
	for _, token := range []string{"1", "x", "!", pageToken("spiffe://a.test/b"), entryToken("e"), domainToken("No Name")} {
		_, err := r.ListFederatedBundles(t.Context(), &bundlev1.ListFederatedBundlesRequest{PageToken: token, PageSize: 1})
		wantStatus(t, err, codes.InvalidArgument, fmt.Sprintf("malformed page token: %q is not a token of this issuer: begin again without one", token))
	}
}

func TestDeletingAFederatedBundle(t *testing.T) {
	r := newBundleRig(t)
	ctx := t.Context()
	for _, name := range []string{"a.test", "b.test"} {
		r.setFederated(r.foreignBundle(name))
	}
	with := func(path string, tds ...string) *types.Entry {
		e := plainEntry(path)
		e.FederatesWith = tds
		return e
	}
	made := r.create(with("/both", "a.test", "b.test"), with("/a", "a.test"), with("/none"))
	del := func(mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, names ...string) []*bundlev1.BatchDeleteFederatedBundleResponse_Result {
		t.Helper()
		resp, err := r.BatchDeleteFederatedBundle(ctx, &bundlev1.BatchDeleteFederatedBundleRequest{Mode: mode, TrustDomains: names})
		must(t, err)
		for i, result := range resp.Results {
			if result.TrustDomain != names[i] {
				t.Errorf("result %d is of %q", i, result.TrustDomain)
			}
		}
		return resp.Results
	}
	results := del(bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "a.test", "c.test", "lanyard.test", "no name")
	wantItem(t, results[0].Status, codes.FailedPrecondition, "failed to delete federated bundle: cannot delete bundle; federated with 2 registration entries")
	wantItem(t, results[1].Status, codes.NotFound, "bundle not found")
	wantItem(t, results[2].Status, codes.InvalidArgument, "removing the bundle for the server trust domain is not allowed")
	wantItem(t, results[3].Status, codes.InvalidArgument, "trust domain argument is not valid: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores")

	wantItem(t, del(bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, "b.test")[0].Status, codes.OK, "OK")
	both, err := r.GetEntry(ctx, &entryv1.GetEntryRequest{Id: made[0].Id})
	must(t, err)
	if !slices.Equal(both.FederatesWith, []string{"a.test"}) || both.RevisionNumber != 1 {
		t.Errorf("dissociated: %v, revision %d", both.FederatesWith, both.RevisionNumber)
	}
	wantItem(t, del(bundlev1.BatchDeleteFederatedBundleRequest_DELETE, "a.test")[0].Status, codes.OK, "OK")
	left, err := r.ListEntries(ctx, &entryv1.ListEntriesRequest{})
	must(t, err)
	if len(left.Entries) != 1 || left.Entries[0].Id != made[2].Id {
		t.Errorf("left: %v", left.Entries)
	}
	if n := r.deps.Registry.FederatedBundleCount(); n != 0 {
		t.Errorf("%d bundles are left", n)
	}
	_, err = r.BatchDeleteFederatedBundle(ctx, &bundlev1.BatchDeleteFederatedBundleRequest{Mode: 9})
	wantStatus(t, err, codes.InvalidArgument, "failed to parse deletion mode: unhandled delete mode 9")
}

func TestAppendBundleCountsWhatIsNew(t *testing.T) {
	r := newBundleRig(t)
	ctx := t.Context()
	before, err := r.GetBundle(ctx, &bundlev1.GetBundleRequest{})
	must(t, err)
	root := &types.X509Certificate{Asn1: r.sign(spiffeID("/root")).Certificates[0].Raw}
	key := newJWTKey(t, "old")
	for range 2 { // the second time there is nothing new
		after, err := r.AppendBundle(ctx, &bundlev1.AppendBundleRequest{
			X509Authorities: []*types.X509Certificate{root, root, before.X509Authorities[0]}, JwtAuthorities: []*types.JWTKey{key},
		})
		must(t, err)
		if after.SequenceNumber != before.SequenceNumber+1 || len(after.X509Authorities) != len(before.X509Authorities)+1 || len(after.JwtAuthorities) != len(before.JwtAuthorities)+1 {
			t.Errorf("sequence number %d after %d, %d and %d authorities", after.SequenceNumber, before.SequenceNumber, len(after.X509Authorities), len(after.JwtAuthorities))
		}
	}
	_, err = r.AppendBundle(ctx, &bundlev1.AppendBundleRequest{})
	wantStatus(t, err, codes.InvalidArgument, "no authorities to append")
	_, err = r.AppendBundle(ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}})
	wantStatus(t, err, codes.InvalidArgument, "failed to convert X.509 authority: x509: malformed certificate")
	_, err = r.AppendBundle(ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{}}})
	wantStatus(t, err, codes.InvalidArgument, "failed to convert X.509 authority: the certificate is empty")
	_, err = r.AppendBundle(ctx, &bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{newJWTKey(t, "old")}})
	wantStatus(t, err, codes.InvalidArgument, "failed to append bundle: another JWT authority has this key ID")
}

func TestDownstreamPublishesItsJWTAuthority(t *testing.T) {
	r := newBundleRig(t)
	svid := r.sign(spiffeID("/below"))
	r.entry(registration.Entry{SPIFFEID: svid.ID, ParentID: spiffeID("/node"), Downstream: true})
	below := bundlev1.NewBundleClient(r.as(svid))
	key := newJWTKey(t, "below")
	resp, err := below.PublishJWTAuthority(t.Context(), &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
	must(t, err)
	has := func(keys []*types.JWTKey) bool {
		return slices.ContainsFunc(keys, func(k *types.JWTKey) bool { return k.KeyId == "below" })
	}
	own, err := r.GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	if !has(resp.JwtAuthorities) || !has(own.JwtAuthorities) {
		t.Errorf("answer %v, bundle %v", resp.JwtAuthorities, own.JwtAuthorities)
	}
	_, err = below.PublishJWTAuthority(t.Context(), &bundlev1.PublishJWTAuthorityRequest{})
	wantStatus(t, err, codes.InvalidArgument, "missing JWT authority")
	_, err = below.PublishJWTAuthority(t.Context(), &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: &types.JWTKey{PublicKey: key.PublicKey}})
	wantStatus(t, err, codes.InvalidArgument, "invalid JWT authority: missing key ID")
}

func FuzzDomainToken(f *testing.F) {
	f.Add("")
	f.Add(domainToken("a.test"))
	f.Add("dGQvMS8")
	f.Fuzz(func(t *testing.T, token string) {
		name, err := parseDomainToken(token)
		if err == nil && token != "" && domainToken(name) != token {
			t.Errorf("%q is taken for that of %q", token, name)
		}
	})
}
