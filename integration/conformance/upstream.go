package conformance

import (
	"crypto/x509"
	"encoding/hex"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	la "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func upstreamChecks() []Check {
	return []Check{
		{"upstream/chain", upstreamChain},
		{"upstream/downstream chain", upstreamDownstream},
		{"upstream/local calls refused", upstreamRefused},
		{"upstream/IDs refused", upstreamIDs},
		{"upstream/another root", upstreamReplaced},
	}
}

// upstreamChain wants the intermediate in each chain, and the upstream's root alone in the bundle.
func upstreamChain(c *C) {
	roots := c.bundle().X509Authorities()
	if len(roots) != 1 || !roots[0].Equal(c.root) {
		c.Fatalf("%d authorities in the bundle, want the upstream's root", len(roots))
	}
	state, _, _ := c.x509Kind().state()
	c.equal("upstream of the active one", state.UpstreamAuthoritySubjectKeyId, hex.EncodeToString(c.root.SubjectKeyId))
	for what, svid := range map[string]*x509svid.SVID{"workload": c.mint("/web"), "agent": c.join().svid} {
		c.equal("length of the chain of a "+what, len(svid.Certificates), 2)
		c.caProfile(svid.Certificates[1])
		c.equal("authority ID", hex.EncodeToString(svid.Certificates[1].SubjectKeyId), state.AuthorityId)
		_, _, err := x509svid.Verify(svid.Certificates, c.bundle())
		c.must(err)
	}
	if left := time.Until(time.Unix(state.ExpiresAt, 0)); left > 12*time.Hour || left < 11*time.Hour {
		c.Errorf("the CA lives %s, want it to end with the upstream's, in twelve hours", left)
	}
}

// upstreamDownstream is a CA two levels below the root.
func upstreamDownstream(c *C) {
	svids := svidv1.NewSVIDClient(c.byEntry("downstream", &types.Entry{Downstream: true}).conn)
	resp, err := svids.NewDownstreamX509CA(c.ctx, &svidv1.NewDownstreamX509CARequest{Csr: newCSR(c)})
	c.must(err)
	c.equal("length of the chain", len(resp.CaCertChain), 2)
	c.equal("authorities", resp.X509Authorities, [][]byte{c.root.Raw})
	ca, err := x509.ParseCertificate(resp.CaCertChain[0])
	c.must(err)
	above, err := x509.ParseCertificate(resp.CaCertChain[1])
	c.must(err)
	c.must(ca.CheckSignatureFrom(above))
	c.must(above.CheckSignatureFrom(c.root))
}

func upstreamRefused(c *C) {
	k := c.x509Kind()
	_, err := k.taint("any")
	c.refused(err, codes.FailedPrecondition, "local authority can't be tainted if there is an upstream authority")
	_, err = k.revoke("any")
	c.refused(err, codes.FailedPrecondition, "local authority can't be revoked if there is an upstream authority")
	next, err := k.prepare()
	c.must(err)
	_, err = k.activate(next.AuthorityId)
	c.must(err)
	c.equal("authorities in the bundle", len(c.bundle().X509Authorities()), 1)
}

func upstreamIDs(c *C) {
	client := la.NewLocalAuthorityClient(c.conn)
	for id, text := range map[string]string{
		"":                                      "no subject key ID provided",
		hex.EncodeToString(c.root.SubjectKeyId): "unable to use upstream authority singing current authority",
		"ab":                                    "upstream authority didn't sign the old local authority",
	} {
		_, err := client.TaintX509UpstreamAuthority(c.ctx, &la.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
		c.refused(err, codes.InvalidArgument, "provided subject key id is not valid: "+text)
		_, err = client.RevokeX509UpstreamAuthority(c.ctx, &la.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
		c.refused(err, codes.InvalidArgument, "invalid subject key ID: "+text)
	}
}

// upstreamReplaced has the upstream authority replaced, and what the former signed made void.
func upstreamReplaced(c *C) {
	former := c.root
	c.newRoot(c.T)
	k := c.x509Kind()
	next, err := k.prepare()
	c.must(err)
	c.equal("upstream of the prepared one", next.UpstreamAuthoritySubjectKeyId, hex.EncodeToString(c.root.SubjectKeyId))
	c.equal("authorities in the bundle", len(c.bundle().X509Authorities()), 2)
	_, err = k.activate(next.AuthorityId)
	c.must(err)
	client, id := la.NewLocalAuthorityClient(c.conn), hex.EncodeToString(former.SubjectKeyId)
	_, err = client.RevokeX509UpstreamAuthority(c.ctx, &la.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
	c.refused(err, codes.Internal, "failed to revoke X.509 upstream authority: …") // it is not tainted
	tainted, err := client.TaintX509UpstreamAuthority(c.ctx, &la.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
	c.must(err)
	c.equal("tainted", tainted.UpstreamAuthoritySubjectKeyId, id)
	c.equal("mark in the bundle", c.rawBundle().X509Authorities[0].Tainted, true)
	revoked, err := client.RevokeX509UpstreamAuthority(c.ctx, &la.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
	c.must(err)
	c.equal("revoked", revoked.UpstreamAuthoritySubjectKeyId, id)
	roots := c.bundle().X509Authorities()
	if len(roots) != 1 || !roots[0].Equal(c.root) {
		c.Errorf("%d authorities in the bundle, want the new root", len(roots))
	}
	_, _, err = x509svid.Verify(c.mint("/web").Certificates, c.bundle())
	c.must(err)
	ownSVID(c)
}
