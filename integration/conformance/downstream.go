package conformance

import (
	"crypto/x509"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func downstreamChecks() []Check {
	return []Check{
		{"downstream/new CA", newDownstreamCA},
		{"downstream/refused", downstreamRefused},
	}
}

// newDownstreamCA wants a CA below the server's, whose SVIDs verify up to the server's bundle.
func newDownstreamCA(c *C) {
	svids := svidv1.NewSVIDClient(c.byEntry("downstream", &types.Entry{Downstream: true, X509SvidTtl: 60}).conn)
	for ttl, want := range map[int32]time.Duration{0: 24 * time.Hour, 3600: time.Hour, 400 * 3600: 24 * time.Hour} {
		key := newKey(c)
		resp, err := svids.NewDownstreamX509CA(c.ctx, &svidv1.NewDownstreamX509CARequest{
			Csr: csrOf(c, &x509.CertificateRequest{}, key), PreferredTtl: ttl,
		})
		c.must(err)
		b, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
		c.must(err)
		var roots [][]byte
		for _, root := range b.X509Authorities {
			roots = append(roots, root.Asn1)
		}
		c.equal("authorities", resp.X509Authorities, roots)
		c.equal("length of the chain", len(resp.CaCertChain), 1)
		ca, err := x509.ParseCertificate(resp.CaCertChain[0])
		c.must(err)
		c.caProfile(ca)
		if left := time.Until(ca.NotAfter); left > want+time.Second || left < want-time.Minute {
			c.Errorf("valid for %s, want %s", left, want)
		}
		if len(ca.Subject.OrganizationalUnit) != 1 || !strings.HasPrefix(ca.Subject.OrganizationalUnit[0], "DOWNSTREAM-") {
			c.Errorf("subject %s", ca.Subject)
		}
		below := &testca.CA{TrustDomain: c.td, Cert: ca, Key: key}
		leaf := below.SVID(c.T, c.id("/below").String())
		_, _, err = x509svid.Verify(append(leaf.Certificates, ca), c.bundle())
		c.must(err)
	}
}

func downstreamRefused(c *C) {
	svids := svidv1.NewSVIDClient(c.byEntry("downstream", &types.Entry{Downstream: true}).conn)
	ask := func(csr []byte) error {
		_, err := svids.NewDownstreamX509CA(c.ctx, &svidv1.NewDownstreamX509CARequest{Csr: csr})
		return err
	}
	c.refused(ask(nil), codes.InvalidArgument, c.words("malformed CSR: …", "missing CSR"))
	c.refused(ask([]byte("x")), codes.InvalidArgument, "malformed CSR: …")
	c.refused(ask(forgedCSR(c)), codes.InvalidArgument, "invalid CSR signature: …")
}
