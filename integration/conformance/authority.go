package conformance

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	la "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

func authorityChecks() []Check {
	return []Check{
		{"authority/X.509 life", x509Life},
		{"authority/JWT life", jwtLife},
		{"authority/upstream calls without one", noUpstream},
		{"authority/WIT", witAuthority},
		{"authority/server's own SVID", ownSVID},
	}
}

// x509Life wants the SVIDs of a new authority signed by it, and those of a tainted one still good until it is revoked.
func x509Life(c *C) {
	k := c.x509Kind()
	before, _, _ := k.state()
	cert := c.mint("/before").Certificates[0]
	c.equal("signer", hex.EncodeToString(cert.AuthorityKeyId), before.AuthorityId)
	c.authorityLife(k, "X.509", func(active string) {
		c.equal("signer", hex.EncodeToString(c.mint("/after").Certificates[0].AuthorityKeyId), active)
	})
	c.refusedID(k.revoke, "invalid authority ID: no authority ID provided", "invalid authority ID: unable to use current authority",
		"invalid authority ID: only Old local authority can be revoked", k)
}

func jwtLife(c *C) {
	k := c.jwtKind()
	c.authorityLife(k, "JWT", func(active string) {
		resp, err := c.svids.MintJWTSVID(c.ctx, &svidv1.MintJWTSVIDRequest{Id: c.pid("/after"), Audience: []string{"a"}})
		c.must(err)
		token, err := jwt.ParseSigned(resp.Svid.Token, []jose.SignatureAlgorithm{jose.ES256})
		c.must(err)
		c.equal("signer", token.Headers[0].KeyID, active)
	})
	c.refusedID(k.revoke, "invalid authority ID: no authority ID provided", "invalid authority ID: unable to use current authority",
		"invalid authority ID: no JWT authority found with provided authority ID", k)
}

// refusedID calls with no ID, the active one and an unknown one.
func (c *C) refusedID(call func(string) (*la.AuthorityState, error), none, current, unknown string, k authorityKind) {
	c.Helper()
	active, _, _ := k.state()
	for id, text := range map[string]string{"": none, active.AuthorityId: current, "unheard-of": unknown} {
		_, err := call(id)
		c.refused(err, codes.InvalidArgument, text)
	}
}

// authorityLife follows an authority from its making to its end.
func (c *C) authorityLife(k authorityKind, name string, activated func(id string)) {
	c.Helper()
	first, prepared, old := k.state()
	if first.GetAuthorityId() == "" || first.ExpiresAt < time.Now().Add(23*time.Hour).Unix() || prepared != nil || old != nil {
		c.Fatalf("at first: active %v, prepared %v, old %v", first, prepared, old)
	}
	c.equal("upstream of the active one", first.UpstreamAuthoritySubjectKeyId, "")
	_, err := k.activate(first.AuthorityId)
	c.refused(err, codes.InvalidArgument, "unexpected authority ID")

	next, err := k.prepare()
	c.must(err)
	_, prepared, _ = k.state()
	c.equal("prepared", prepared, next)
	there, tainted := k.bundled(next.AuthorityId)
	c.equal("in the bundle once prepared, tainted", []bool{there, tainted}, []bool{true, false})
	c.refusedID(k.activate, "no authority ID provided", "unexpected authority ID", "unexpected authority ID", k)
	_, err = k.taint(next.AuthorityId)
	c.refused(err, codes.InvalidArgument, "only Old local authorities can be tainted: unsupported local authority status: PREPARED")
	_, err = k.revoke(next.AuthorityId)
	c.refused(err, codes.InvalidArgument, "invalid authority ID: …")

	got, err := k.activate(next.AuthorityId)
	c.must(err)
	c.equal("activated", got, next)
	active, prepared, old := k.state()
	c.equal("active", active, next)
	c.equal("prepared", prepared, (*la.AuthorityState)(nil))
	c.equal("old", old, first)
	activated(next.AuthorityId)
	_, err = k.activate(first.AuthorityId)
	c.refused(err, codes.Internal, "only Prepared authorities can be activated: unsupported local authority status: OLD")
	c.refusedID(k.taint, "no authority ID provided", "unable to taint current local authority", "unexpected authority ID", k)

	_, err = k.revoke(first.AuthorityId)
	c.refused(err, codes.Internal, "failed to revoke "+name+" authority: …") // it is not tainted
	before := c.rawBundle().SequenceNumber
	got, err = k.taint(first.AuthorityId)
	c.must(err)
	c.equal("tainted", got.AuthorityId, first.AuthorityId)
	there, tainted = k.bundled(first.AuthorityId)
	c.equal("in the bundle, tainted", []bool{there, tainted}, []bool{true, true})
	_, err = k.taint(first.AuthorityId)
	c.refused(err, codes.Internal, "failed to taint "+name+" authority: …")
	got, err = k.revoke(first.AuthorityId)
	c.must(err)
	c.equal("revoked", got.AuthorityId, first.AuthorityId)
	there, _ = k.bundled(first.AuthorityId)
	c.equal("in the bundle once revoked", there, false)
	c.equal("sequence number", c.rawBundle().SequenceNumber, before+2)
}

func noUpstream(c *C) {
	client := la.NewLocalAuthorityClient(c.conn)
	_, err := client.TaintX509UpstreamAuthority(c.ctx, &la.TaintX509UpstreamAuthorityRequest{SubjectKeyId: "ab"})
	c.refused(err, codes.FailedPrecondition, "upstream authority is not configured")
	_, err = client.RevokeX509UpstreamAuthority(c.ctx, &la.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: "ab"})
	c.refused(err, codes.FailedPrecondition, "upstream authority is not configured")
}

func witAuthority(c *C) {
	client := la.NewLocalAuthorityClient(c.conn)
	for _, call := range []func(ctx context.Context) error{
		func(ctx context.Context) error {
			_, err := client.GetWITAuthorityState(ctx, &la.GetWITAuthorityStateRequest{})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.PrepareWITAuthority(ctx, &la.PrepareWITAuthorityRequest{})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.ActivateWITAuthority(ctx, &la.ActivateWITAuthorityRequest{AuthorityId: "a"})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.TaintWITAuthority(ctx, &la.TaintWITAuthorityRequest{AuthorityId: "a"})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.RevokeWITAuthority(ctx, &la.RevokeWITAuthorityRequest{AuthorityId: "a"})
			return err
		},
	} {
		c.refused(call(c.ctx), codes.Unimplemented, "WIT-SVID functionality is not yet implemented")
	}
}

// ownSVID wants the server to follow its own rotation: the authority that signed its SVID at first is revoked by now.
func ownSVID(c *C) {
	c.until("handshake", func() error {
		_, err := bundlev1.NewBundleClient(c.dial(nil)).GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
		return err
	})
}

// authorityRestart wants the same authorities in the same states after a restart, and agents, entries and tokens too.
func authorityRestart(c *C) {
	k, j := c.x509Kind(), c.jwtKind()
	_, err := k.prepare()
	c.must(err)
	_, err = j.prepare()
	c.must(err)
	active, prepared, _ := k.state()
	jwtActive, jwtPrepared, _ := j.state()
	bundle, token := c.rawBundle(), c.token()
	a := c.join()
	e := c.entry(c.child(a.id))
	c.server.Restart()
	c.until("connection", func() error {
		_, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
		return err
	})
	afterActive, afterPrepared, _ := k.state()
	c.equal("active", afterActive, active)
	c.equal("prepared", afterPrepared, prepared)
	afterActive, afterPrepared, _ = j.state()
	c.equal("active JWT key", afterActive, jwtActive)
	c.equal("prepared JWT key", afterPrepared, jwtPrepared)
	c.equal("bundle", c.rawBundle(), bundle)
	c.equal("entry", c.getEntry(e.Id), e)
	c.must(c.as(a.svid).post(c))
	_, err = c.attest("join_token", []byte(token), newKey(c))
	c.must(err)
}
