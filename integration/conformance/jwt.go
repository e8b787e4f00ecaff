package conformance

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func jwtChecks() []Check {
	return []Check{
		{"svid/new JWT", newJWT},
		{"svid/new JWT with an ID of its own", newJWTID},
		{"svid/new JWT refused", newJWTRefused},
		{"svid/mint JWT", mintJWT},
		{"svid/mint JWT refused", mintJWTRefused},
	}
}

// jwtShape expects a JWT-SVID's header and claims, and go-spiffe to accept it. It returns the claims.
func (c *C) jwtShape(svid *types.JWTSVID, id *types.SPIFFEID, ttl time.Duration, audience ...string) map[string]any {
	c.Helper()
	var header, claims map[string]any
	parts := strings.Split(svid.Token, ".")
	if len(parts) != 3 {
		c.Fatalf("a token of %d parts", len(parts))
	}
	for i, part := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		c.must(err)
		c.must(json.Unmarshal(text, part))
	}
	c.equal("header", slices.Sorted(maps.Keys(header)), []string{"alg", "kid", "typ"})
	c.equal("alg and typ", []any{header["alg"], header["typ"]}, []any{"ES256", "JWT"})
	var aud []any
	for _, a := range audience {
		aud = append(aud, a)
	}
	c.equal("aud", claims["aud"], any(aud))
	c.equal("sub", claims["sub"], any(fmt.Sprintf("spiffe://%s%s", id.TrustDomain, id.Path)))
	c.equal("exp and iat", []int64{int64(claims["exp"].(float64)), int64(claims["iat"].(float64))}, []int64{svid.ExpiresAt, svid.IssuedAt})
	c.equal("ID", svid.Id, id)
	if left := time.Until(time.Unix(svid.ExpiresAt, 0)); left > ttl || left < ttl-10*time.Second {
		c.Errorf("valid for %s, want %s", left, ttl)
	}
	_, err := jwtsvid.ParseAndValidate(svid.Token, c.jwtBundle(), audience[:1])
	c.must(err)
	return claims
}

// jwtBundle is the keys of the server's own bundle.
func (c *C) jwtBundle() *jwtbundle.Bundle {
	c.Helper()
	got, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	bundle := jwtbundle.New(c.td)
	for _, authority := range got.JwtAuthorities {
		key, err := x509.ParsePKIXPublicKey(authority.PublicKey)
		c.must(err)
		c.must(bundle.AddJWTAuthority(authority.KeyId, key))
	}
	return bundle
}

func newJWT(c *C) {
	a := c.join()
	short, plain := c.child(a.id), c.entry(c.child(a.id))
	short.JwtSvidTtl, short.Hint = 30, "hint"
	short = c.entry(short)
	c.authorized(a, short.Id, plain.Id)
	for _, row := range []struct {
		entry    *types.Entry
		ttl      time.Duration
		audience []string
	}{{plain, 5 * time.Minute, []string{"one"}}, {short, 30 * time.Second, []string{"two", "one", "two"}}} {
		resp, err := a.svids.NewJWTSVID(c.ctx, &svidv1.NewJWTSVIDRequest{EntryId: row.entry.Id, Audience: row.audience})
		c.must(err)
		claims := c.jwtShape(resp.Svid, row.entry.SpiffeId, row.ttl, row.audience...)
		c.equal("claims", slices.Sorted(maps.Keys(claims)), []string{"aud", "exp", "iat", "sub"})
		c.equal("hint", resp.Svid.Hint, "")
	}
}

func newJWTID(c *C) {
	a := c.join()
	e := c.child(a.id)
	e.AdditionalAttributes = &types.Entry_AdditionalAttributes{JwtSvidIncludeJti: true}
	e = c.entry(e)
	c.authorized(a, e.Id)
	seen := map[any]bool{}
	for range 2 {
		resp, err := a.svids.NewJWTSVID(c.ctx, &svidv1.NewJWTSVIDRequest{EntryId: e.Id, Audience: []string{"a"}})
		c.must(err)
		jti := c.jwtShape(resp.Svid, e.SpiffeId, 5*time.Minute, "a")["jti"]
		if seen[jti] || jti == nil || jti == "" {
			c.Errorf("jti %v", jti)
		}
		seen[jti] = true
	}
}

func newJWTRefused(c *C) {
	a, other := c.join(), c.join()
	mine, theirs := c.entry(c.child(a.id)), c.entry(c.child(other.id))
	c.authorized(a, mine.Id)
	c.authorized(other, theirs.Id)
	ask := func(entry string, audience ...string) error {
		_, err := a.svids.NewJWTSVID(c.ctx, &svidv1.NewJWTSVIDRequest{EntryId: entry, Audience: audience})
		return err
	}
	c.refused(ask(mine.Id), codes.InvalidArgument, "at least one audience is required")
	c.refused(ask(theirs.Id, "a"), codes.NotFound, "entry not found or not authorized")
	c.refused(ask("unheard-of", "a"), codes.NotFound, "entry not found or not authorized")
	c.refused(ask("", "a"), codes.NotFound, "entry not found or not authorized")
}

func mintJWT(c *C) {
	id := c.pid("/" + c.unique("minted"))
	for ttl, want := range map[int32]time.Duration{0: 5 * time.Minute, 60: time.Minute} {
		resp, err := c.svids.MintJWTSVID(c.ctx, &svidv1.MintJWTSVIDRequest{Id: id, Audience: []string{"a", "b"}, Ttl: ttl})
		c.must(err)
		claims := c.jwtShape(resp.Svid, id, want, "a", "b")
		c.equal("claims", slices.Sorted(maps.Keys(claims)), []string{"aud", "exp", "iat", "sub"})
	}
	long, err := c.svids.MintJWTSVID(c.ctx, &svidv1.MintJWTSVIDRequest{Id: id, Audience: []string{"a"}, Ttl: 400 * 3600})
	c.must(err)
	b, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	c.equal("expires at", long.Svid.ExpiresAt, b.JwtAuthorities[0].ExpiresAt)
}

func mintJWTRefused(c *C) {
	mint := func(id *types.SPIFFEID, audience ...string) error {
		_, err := c.svids.MintJWTSVID(c.ctx, &svidv1.MintJWTSVIDRequest{Id: id, Audience: audience})
		return err
	}
	td := c.td.Name()
	c.refused(mint(nil, "a"), codes.InvalidArgument, "invalid SPIFFE ID: request must specify SPIFFE ID")
	c.refused(mint(c.pid(""), "a"), codes.InvalidArgument, c.words(
		`invalid SPIFFE ID: "spiffe://`+td+`" is not a workload in trust domain "`+td+`"; path is empty`, "invalid SPIFFE ID: …"))
	c.refused(mint(c.pid("/spire/server"), "a"), codes.InvalidArgument,
		`invalid SPIFFE ID: "spiffe://`+td+`/spire/server" is not a workload in trust domain "`+td+`"; path is in the reserved namespace`)
	c.refused(mint(&types.SPIFFEID{TrustDomain: "other.test", Path: "/a"}, "a"), codes.InvalidArgument,
		`invalid SPIFFE ID: "spiffe://other.test/a" is not a member of trust domain "`+td+`"`)
	c.refused(mint(c.pid("/a")), codes.InvalidArgument, "at least one audience is required")
}
