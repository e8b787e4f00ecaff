package conformance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
)

func mintChecks() []Check {
	return []Check{
		{"svid/mint X.509", mintX509},
		{"svid/mint X.509 refused", mintX509Refused},
		{"svid/mint X.509 with DNS names", mintX509DNS},
	}
}

// mintX509 wants the CSR's names and subject, and no entry.
func mintX509(c *C) {
	id, key := c.id("/"+c.unique("minted")), newKey(c)
	subject := pkix.Name{Organization: []string{"ORG"}, Country: []string{"XX"}, CommonName: "minted"}
	csr := csrOf(c, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}, DNSNames: []string{"a.test", "b.test"}, Subject: subject}, key)
	for ttl, want := range map[int32]time.Duration{0: time.Hour, 60: time.Minute} {
		resp, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: ttl})
		c.must(err)
		cert := svidOf(c, resp.Svid, key).Certificates[0]
		c.leafProfile(cert, id)
		c.validity(cert, want)
		c.equal("ID", resp.Svid.Id, c.pid(id.Path()))
		c.equal("expires at", resp.Svid.ExpiresAt, cert.NotAfter.Unix())
		c.equal("DNS names", cert.DNSNames, []string{"a.test", "b.test"})
		c.equal("subject, its common name the first DNS name", cert.Subject.String(), "CN=a.test,O=ORG,C=XX")
	}
	named, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{
		Csr: csrOf(c, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}, Subject: subject}, key),
	})
	c.must(err)
	c.equal("subject without DNS names", svidOf(c, named.Svid, key).Certificates[0].Subject.String(), subject.String())
	plain, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csrOf(c, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)})
	c.must(err)
	c.equal("subject by default", svidOf(c, plain.Svid, key).Certificates[0].Subject.String(),
		pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}.String())
	long, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: 400 * 3600})
	c.must(err)
	c.equal("not after", svidOf(c, long.Svid, key).Certificates[0].NotAfter, c.bundle().X509Authorities()[0].NotAfter)
}

func mintX509Refused(c *C) {
	key := newKey(c)
	mint := func(csr []byte) error {
		_, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csr})
		return err
	}
	uris := func(texts ...string) []byte {
		template := &x509.CertificateRequest{}
		for _, text := range texts {
			uri, err := url.Parse(text)
			c.must(err)
			template.URIs = append(template.URIs, uri)
		}
		return csrOf(c, template, key)
	}
	td := c.td.Name()
	c.refused(mint(nil), codes.InvalidArgument, "missing CSR")
	c.refused(mint([]byte("x")), codes.InvalidArgument, "malformed CSR: …")
	c.refused(mint(forgedCSR(c)), codes.InvalidArgument, "failed to verify CSR signature: …")
	c.refused(mint(uris()), codes.InvalidArgument, "CSR URI SAN is required")
	c.refused(mint(uris("spiffe://"+td+"/a", "spiffe://"+td+"/b")), codes.InvalidArgument, "only one URI SAN is expected")
	c.refused(mint(uris("https://"+td+"/a")), codes.InvalidArgument, "CSR URI SAN is invalid: scheme is missing or invalid")
	c.refused(mint(uris("spiffe://other.test/a")), codes.InvalidArgument,
		`CSR URI SAN is invalid: "spiffe://other.test/a" is not a member of trust domain "`+td+`"`)
	c.refused(mint(uris("spiffe://"+td)), codes.InvalidArgument, c.words(
		`CSR URI SAN is invalid: "spiffe://`+td+`" is not a workload in trust domain "`+td+`"; path is empty`, "CSR URI SAN is invalid: …"))
	c.refused(mint(uris("spiffe://"+td+"/spire/agent/x")), codes.InvalidArgument,
		`CSR URI SAN is invalid: "spiffe://`+td+`/spire/agent/x" is not a workload in trust domain "`+td+`"; path is in the reserved namespace`)
}

func mintX509DNS(c *C) {
	mint := func(names ...string) error {
		csr := csrOf(c, &x509.CertificateRequest{URIs: []*url.URL{c.id("/web").URL()}, DNSNames: names}, newKey(c))
		_, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csr})
		return err
	}
	c.must(mint("*.a.test", "b.test"))
	c.refused(mint("ok.test", "-bad.test"), codes.InvalidArgument, "CSR DNS name is invalid: …")
	c.refused(mint("*.a.test", "x.a.test"), codes.InvalidArgument,
		"CSR DNS name contains a wildcard that covers another non-wildcard name: …")
}
