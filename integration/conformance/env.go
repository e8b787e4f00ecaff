package conformance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// checkLimit is how long one check may take: an agent's entries are up to ten seconds old on SPIRE.
const checkLimit = 30 * time.Second

// env is one server with what its checks share.
type env struct {
	kind    Kind
	server  *Server
	td      spiffeid.TrustDomain
	conn    *grpc.ClientConn  // to the admin socket
	foreign *testca.CA        // of the domain whose operator admin_ids names
	pop     *testca.CA        // the CA of x509pop
	root    *x509.Certificate // of the upstream authority, if there is one
	dir     string
	seen    *seen
	counter atomic.Int64
}

func newEnv(t *testing.T, kind Kind, s *seen) *env {
	t.Helper()
	dir, err := os.MkdirTemp("", "lycf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &env{kind: kind, seen: s, dir: dir, foreign: testca.New(t, "foreign.test"), pop: testca.New(t, "factory.test")}
}

// start starts the server and connects to its admin socket.
func (e *env) start(t *testing.T, target Target, s Settings) {
	t.Helper()
	e.server = target.Start(t, s)
	e.td = spiffeid.RequireTrustDomainFromString(TrustDomain)
	conn, err := grpc.NewClient("unix:"+e.server.AdminSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	e.conn = conn
}

// write writes a file of the environment, and returns its path.
func (e *env) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := e.dir + "/" + name
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// C is a check that runs: the test, the server and the means to call it.
type C struct {
	*testing.T
	*env
	name string
	ctx  context.Context // ends with the check

	agents  agentv1.AgentClient // of the admin socket, as the others
	bundles bundlev1.BundleClient
	entries entryv1.EntryClient
	svids   svidv1.SVIDClient
	domains trustdomainv1.TrustDomainClient
}

func newC(t *testing.T, e *env, name string) *C {
	ctx, cancel := context.WithTimeout(t.Context(), checkLimit)
	t.Cleanup(cancel)
	return &C{
		T: t, env: e, name: name, ctx: ctx, agents: agentv1.NewAgentClient(e.conn), bundles: bundlev1.NewBundleClient(e.conn),
		entries: entryv1.NewEntryClient(e.conn), svids: svidv1.NewSVIDClient(e.conn), domains: trustdomainv1.NewTrustDomainClient(e.conn),
	}
}

// Differs tells whether the target is to be checked for Lanyard's side of a reviewed difference.
func (c *C) Differs(name string) bool {
	c.Helper()
	d, ok := difference(name)
	if !ok || !slices.Contains(d.Checks, c.name) {
		c.Fatalf("the reviewed list has no difference %q of the check %q", name, c.name)
	}
	c.seen.add(name)
	return c.kind == Lanyard
}

// unique is a name that no other check has.
func (e *env) unique(prefix string) string { return fmt.Sprintf("%s-%d", prefix, e.counter.Add(1)) }

// id is a SPIFFE ID of the trust domain.
func (e *env) id(path string) spiffeid.ID { return spiffeid.RequireFromPath(e.td, path) }

// must ends the check on an error.
func (c *C) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// until tries again and again, as what one call changes may take a while to be seen by another on SPIRE.
func (c *C) until(what string, try func() error) {
	c.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-c.ctx.Done():
			c.Fatalf("%s: %v", what, err)
		case <-again.C:
		}
	}
}

// dial connects over TCP with the SVID, or with none, for as long as the check runs.
func (c *C) dial(svid *x509svid.SVID) *grpc.ClientConn {
	c.Helper()
	bundle := c.bundle()
	config := tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeID(c.id("/spire/server")))
	if svid != nil {
		config = tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(c.id("/spire/server")))
	}
	conn, err := grpc.NewClient(c.server.Addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	c.must(err)
	c.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bundle is the server's own bundle, as it is now.
func (c *C) bundle() *x509bundle.Bundle {
	c.Helper()
	got, err := c.bundles.GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
	bundle := x509bundle.New(c.td)
	for _, authority := range got.X509Authorities {
		cert, err := x509.ParseCertificate(authority.Asn1)
		c.must(err)
		bundle.AddX509Authority(cert)
	}
	return bundle
}

// mint has the server sign an SVID for any workload ID.
func (c *C) mint(path string) *x509svid.SVID {
	c.Helper()
	key := newKey(c)
	csr := csrOf(c, &x509.CertificateRequest{URIs: []*url.URL{c.id(path).URL()}}, key)
	resp, err := c.svids.MintX509SVID(c.ctx, &svidv1.MintX509SVIDRequest{Csr: csr})
	c.must(err)
	return svidOf(c, resp.Svid, key)
}

func newKey(c *C) *ecdsa.PrivateKey {
	c.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.must(err)
	return key
}

func csrOf(c *C, template *x509.CertificateRequest, key crypto.Signer) []byte {
	c.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	c.must(err)
	return der
}

// newCSR is a request for a new key.
func newCSR(c *C) []byte { return csrOf(c, &x509.CertificateRequest{}, newKey(c)) }

// forgedCSR is a request whose signature does not fit its key.
func forgedCSR(c *C) []byte {
	der := newCSR(c)
	der[len(der)-1] ^= 1
	return der
}
