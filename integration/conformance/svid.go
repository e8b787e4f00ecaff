package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func svidChecks() []Check {
	return []Check{
		{"svid/new X.509 in a batch", newX509SVIDs},
		{"svid/new X.509 refused", newX509Refused},
		{"svid/new X.509 for other key types", newX509Keys},
		{"svid/new X.509 outlives nothing", newX509Clamped},
		{"svid/new X.509 of an expired entry", newX509ExpiredEntry},
		{"svid/new WIT", newWIT},
	}
}

// newX509 asks for SVIDs as an agent.
func (a *agent) newX509(c *C, params ...*svidv1.NewX509SVIDParams) []*svidv1.BatchNewX509SVIDResponse_Result {
	c.Helper()
	resp, err := a.svids.BatchNewX509SVID(c.ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
	c.must(err)
	if len(resp.Results) != len(params) {
		c.Fatalf("%d results for %d parameters", len(resp.Results), len(params))
	}
	return resp.Results
}

// newX509SVIDs wants the entry's ID, names and life, whatever the request asks for.
func newX509SVIDs(c *C) {
	a := c.join()
	named, plain := c.child(a.id), c.child(a.id)
	named.DnsNames, named.X509SvidTtl = []string{"first.test", "*.second.test"}, 120
	named, plain = c.entry(named), c.entry(plain)
	c.authorized(a, named.Id, plain.Id)
	key := newKey(c)
	csr := csrOf(c, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "wish"}, DNSNames: []string{"wish.test"}, URIs: []*url.URL{c.id("/wish").URL()},
	}, key)
	results := a.newX509(c, &svidv1.NewX509SVIDParams{EntryId: plain.Id, Csr: csr}, &svidv1.NewX509SVIDParams{EntryId: named.Id, Csr: csr})
	for i, entry := range []*types.Entry{plain, named} {
		c.mustOK(results[i].Status)
		svid, want := results[i].Svid, c.id(entry.SpiffeId.Path)
		c.equal("ID", svid.Id, entry.SpiffeId)
		got := svidOf(c, svid, key)
		cert := got.Certificates[0]
		c.leafProfile(cert, want)
		c.equal("chain of a self-signed CA's", len(got.Certificates), 1)
		c.equal("expires at", svid.ExpiresAt, cert.NotAfter.Unix())
		c.equal("DNS names", slices.Sorted(slices.Values(cert.DNSNames)), slices.Sorted(slices.Values(entry.DnsNames)))
		c.equal("hint", svid.Hint, "")
		if !key.PublicKey.Equal(cert.PublicKey) {
			c.Error("the SVID is for another key")
		}
		id, _, err := x509svid.Verify(got.Certificates, c.bundle())
		c.must(err)
		c.equal("verified ID", id, want)
		c.validity(cert, map[bool]time.Duration{true: 2 * time.Minute, false: time.Hour}[entry == named])
		subject := pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}
		if entry == named {
			subject.CommonName = "first.test"
		}
		c.equal("subject", cert.Subject.String(), subject.String())
	}
}

// newX509Refused is one of each mistake, in a batch with what is right.
func newX509Refused(c *C) {
	a, other := c.join(), c.join()
	mine, theirs := c.entry(c.child(a.id)), c.entry(c.child(other.id))
	c.authorized(a, mine.Id)
	c.authorized(other, theirs.Id)
	csr := newCSR(c)
	results := a.newX509(c,
		&svidv1.NewX509SVIDParams{Csr: csr},
		&svidv1.NewX509SVIDParams{EntryId: mine.Id},
		&svidv1.NewX509SVIDParams{EntryId: "unheard-of", Csr: csr},
		&svidv1.NewX509SVIDParams{EntryId: theirs.Id, Csr: csr},
		&svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: []byte("not a CSR")},
		&svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: forgedCSR(c)},
		&svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: csr},
		&svidv1.NewX509SVIDParams{EntryId: mine.Id, Csr: csr},
	)
	c.status(results[0].Status, codes.InvalidArgument, "missing entry ID")
	c.status(results[1].Status, codes.InvalidArgument, "missing CSR")
	c.status(results[2].Status, codes.NotFound, "entry not found or not authorized")
	c.status(results[3].Status, codes.NotFound, "entry not found or not authorized")
	c.status(results[4].Status, codes.InvalidArgument, "malformed CSR: …")
	c.status(results[5].Status, codes.InvalidArgument, "invalid CSR signature: …")
	c.ok(results[6].Status)
	c.ok(results[7].Status)
	for _, r := range results[:6] {
		c.equal("SVID of a refused item", r.Svid, (*types.X509SVID)(nil))
	}
	_, err := a.svids.BatchNewX509SVID(c.ctx, &svidv1.BatchNewX509SVIDRequest{})
	c.refused(err, codes.InvalidArgument, "missing parameters")
}

func newX509Keys(c *C) {
	a := c.join()
	e := c.entry(c.child(a.id))
	c.authorized(a, e.Id)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	c.must(err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	c.must(err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	c.must(err)
	for what, key := range map[string]crypto.Signer{"RSA 2048": rsaKey, "P-384": p384, "Ed25519": ed} {
		result := a.newX509(c, &svidv1.NewX509SVIDParams{EntryId: e.Id, Csr: csrOf(c, &x509.CertificateRequest{}, key)})[0]
		c.mustOK(result.Status)
		public := svidOf(c, result.Svid, key).Certificates[0].PublicKey
		if same, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(public) {
			c.Errorf("%s: the SVID is for another key", what)
		}
	}
}

// newX509Clamped wants an SVID to end with the authority that signs it at the latest.
func newX509Clamped(c *C) {
	a := c.join()
	e := c.child(a.id)
	e.X509SvidTtl = 48 * 3600
	e = c.entry(e)
	c.authorized(a, e.Id)
	result := a.newX509(c, &svidv1.NewX509SVIDParams{EntryId: e.Id, Csr: newCSR(c)})[0]
	c.mustOK(result.Status)
	got := svidOf(c, result.Svid, newKey(c))
	root := c.bundle().X509Authorities()[0]
	c.equal("not after", got.Certificates[0].NotAfter, root.NotAfter)
}

// newX509ExpiredEntry is an entry past its end that is not deleted yet.
func newX509ExpiredEntry(c *C) {
	a := c.join()
	e, current := c.child(a.id), c.entry(c.child(a.id))
	e.ExpiresAt = time.Now().Add(-time.Minute).Unix()
	e = c.entry(e)
	if c.Differs("entry: expired") {
		c.authorized(a, current.Id)
		result := a.newX509(c, &svidv1.NewX509SVIDParams{EntryId: e.Id, Csr: newCSR(c)})[0]
		c.status(result.Status, codes.NotFound, "entry not found or not authorized")
		return
	}
	c.authorized(a, current.Id, e.Id)
	c.ok(a.newX509(c, &svidv1.NewX509SVIDParams{EntryId: e.Id, Csr: newCSR(c)})[0].Status)
}

func newWIT(c *C) {
	a := c.join()
	_, err := a.svids.BatchNewWITSVID(c.ctx, &svidv1.BatchNewWITSVIDRequest{})
	if c.Differs("WIT-SVID") {
		c.refused(err, codes.Unimplemented, "…")
		_, err = c.svids.MintWITSVID(c.ctx, &svidv1.MintWITSVIDRequest{})
		c.refused(err, codes.Unimplemented, "WIT functionality is disabled")
		return
	}
	c.refused(err, codes.InvalidArgument, "missing parameters")
	_, err = c.svids.MintWITSVID(c.ctx, &svidv1.MintWITSVIDRequest{})
	c.refused(err, codes.Unimplemented, "WIT functionality is disabled")
}
