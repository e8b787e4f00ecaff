package conformance

import (
	"crypto/x509"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func bundleChecks() []Check {
	return []Check{
		{"bundle/get", getBundle},
		{"bundle/get masked", getBundleMasked},
		{"bundle/append", appendBundle},
		{"bundle/append refused", appendRefused},
		{"bundle/publish JWT authority", publishJWT},
		{"bundle/publish refused", publishRefused},
		{"bundle/WIT authority", publishWIT},
		{"bundle/count", countBundles},
	}
}

// getBundle wants a root and a JWT key, as clients need them.
func getBundle(c *C) {
	b, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	c.equal("trust domain", b.TrustDomain, c.td.Name())
	if len(b.X509Authorities) == 0 || len(b.JwtAuthorities) == 0 || b.SequenceNumber == 0 {
		c.Fatalf("got %v, want authorities of both kinds and a sequence number", b)
	}
	root, err := x509.ParseCertificate(b.X509Authorities[0].Asn1)
	c.must(err)
	c.caProfile(root)
	if left := time.Until(root.NotAfter); left < 23*time.Hour || left > 25*time.Hour {
		c.Errorf("the root is valid for %s, want a day", left)
	}
	key := b.JwtAuthorities[0]
	if _, err := x509.ParsePKIXPublicKey(key.PublicKey); err != nil || len(key.KeyId) != 32 || key.Tainted {
		c.Errorf("JWT key %q: %v", key.KeyId, err)
	}
	if left := time.Until(time.Unix(key.ExpiresAt, 0)); left < 23*time.Hour || left > 25*time.Hour {
		c.Errorf("the JWT key is valid for %s, want a day", left)
	}
}

func getBundleMasked(c *C) {
	all, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	for _, row := range []struct {
		mask *types.BundleMask
		want *types.Bundle
	}{
		{&types.BundleMask{}, &types.Bundle{}},
		{&types.BundleMask{X509Authorities: true}, &types.Bundle{X509Authorities: all.X509Authorities}},
		{&types.BundleMask{JwtAuthorities: true}, &types.Bundle{JwtAuthorities: all.JwtAuthorities}},
		{&types.BundleMask{RefreshHint: true}, &types.Bundle{RefreshHint: all.RefreshHint}},
		{&types.BundleMask{SequenceNumber: true}, &types.Bundle{SequenceNumber: all.SequenceNumber}},
		{&types.BundleMask{WitAuthorities: true}, &types.Bundle{}},
	} {
		got, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{OutputMask: row.mask})
		c.must(err)
		row.want.TrustDomain = c.td.Name()
		c.equal(row.mask.String(), got, row.want)
	}
}

// jwtKey is a JWT authority with a new key.
func (c *C) jwtKey() *types.JWTKey {
	c.Helper()
	der, err := x509.MarshalPKIXPublicKey(newKey(c).Public())
	c.must(err)
	return &types.JWTKey{PublicKey: der, KeyId: c.unique("key"), ExpiresAt: time.Now().Add(time.Hour).Unix()}
}

// appendBundle wants what is new appended, what is there left, and the sequence number raised for what is new.
func appendBundle(c *C) {
	root, key := testcaNew(c), c.jwtKey()
	before, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	req := &bundlev1.AppendBundleRequest{
		X509Authorities: []*types.X509Certificate{{Asn1: root.Cert.Raw}}, JwtAuthorities: []*types.JWTKey{key},
	}
	got, err := c.bundles.AppendBundle(c.ctx, req)
	c.must(err)
	want := &types.Bundle{
		TrustDomain: c.td.Name(), RefreshHint: before.RefreshHint, SequenceNumber: before.SequenceNumber + 1,
		X509Authorities: append(before.X509Authorities, req.X509Authorities[0]), JwtAuthorities: append(before.JwtAuthorities, key),
	}
	c.equal("bundle", got, want)
	again, err := c.bundles.AppendBundle(c.ctx, req)
	c.must(err)
	c.equal("bundle after the same again", again, want)
	masked, err := c.bundles.AppendBundle(c.ctx, &bundlev1.AppendBundleRequest{
		X509Authorities: req.X509Authorities, OutputMask: &types.BundleMask{SequenceNumber: true},
	})
	c.must(err)
	c.equal("masked", masked, &types.Bundle{TrustDomain: c.td.Name(), SequenceNumber: want.SequenceNumber})
	c.as(root.SVID(c.T, c.id(adminPath).String())) // what was appended is trusted
}

func appendRefused(c *C) {
	call := func(req *bundlev1.AppendBundleRequest) error {
		_, err := c.bundles.AppendBundle(c.ctx, req)
		return err
	}
	c.refused(call(&bundlev1.AppendBundleRequest{}), codes.InvalidArgument, "no authorities to append")
	c.refused(call(&bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}}),
		codes.InvalidArgument, "failed to convert X.509 authority: …")
	c.refused(call(&bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{{PublicKey: []byte("x"), KeyId: "k"}}}),
		codes.InvalidArgument, "failed to convert JWT authority: …")
	key := c.jwtKey()
	key.KeyId = ""
	c.refused(call(&bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{key}}),
		codes.InvalidArgument, "failed to convert JWT authority: missing key ID")
}

// appendEmpty comes last on its server: SPIRE's has no readable bundle from then on.
func appendEmpty(c *C) {
	_, err := c.bundles.AppendBundle(c.ctx, &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{}}})
	if c.Differs("append: empty certificate") {
		c.refused(err, codes.InvalidArgument, "failed to convert X.509 authority: …")
		return
	}
	c.must(err)
	got, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	c.equal("the last authority", got.X509Authorities[len(got.X509Authorities)-1], &types.X509Certificate{})
}

// publishJWT is a nested server's key: everybody's from then on.
func publishJWT(c *C) {
	conn := c.byEntry("downstream", &types.Entry{Downstream: true}).conn
	key := c.jwtKey()
	resp, err := bundlev1.NewBundleClient(conn).PublishJWTAuthority(c.ctx, &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
	c.must(err)
	b, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	c.equal("all keys", resp.JwtAuthorities, b.JwtAuthorities)
	c.equal("the last key", b.JwtAuthorities[len(b.JwtAuthorities)-1], key)
	sequence := b.SequenceNumber
	_, err = bundlev1.NewBundleClient(conn).PublishJWTAuthority(c.ctx, &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
	c.must(err)
	b, err = c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	c.equal("sequence number after the same again", b.SequenceNumber, sequence)
}

func publishRefused(c *C) {
	conn := c.byEntry("downstream", &types.Entry{Downstream: true}).conn
	call := func(key *types.JWTKey) error {
		_, err := bundlev1.NewBundleClient(conn).PublishJWTAuthority(c.ctx, &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
		return err
	}
	c.refused(call(nil), codes.InvalidArgument, "missing JWT authority")
	c.refused(call(&types.JWTKey{KeyId: "k", PublicKey: []byte("x")}), codes.InvalidArgument, "invalid JWT authority: …")
	key := c.jwtKey()
	key.KeyId = ""
	c.refused(call(key), codes.InvalidArgument, "invalid JWT authority: missing key ID")
}

func publishWIT(c *C) {
	conn := c.byEntry("downstream", &types.Entry{Downstream: true}).conn
	_, err := bundlev1.NewBundleClient(conn).PublishWITAuthority(c.ctx, &bundlev1.PublishWITAuthorityRequest{})
	c.refused(err, codes.Unimplemented, "WIT-SVID functionality is not yet implemented")
}

// countBundles counts the own one too.
func countBundles(c *C) {
	count := func() int32 {
		resp, err := c.bundles.CountBundles(c.ctx, &bundlev1.CountBundlesRequest{})
		c.must(err)
		return resp.Count
	}
	before := count()
	c.federate(c.unique("counted")+".test", testca.New(c.T, "counted.test").Cert)
	c.equal("count", count(), before+1)
	list, err := c.bundles.ListFederatedBundles(c.ctx, &bundlev1.ListFederatedBundlesRequest{})
	c.must(err)
	c.equal("count of federated ones", len(list.Bundles), int(before))
}
