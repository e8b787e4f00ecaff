package upstream_test

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/ca/upstream"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

// issuer is an authority on a store of its own.
type issuer struct {
	*ca.Authority
	t     *testing.T
	store *store.Store
}

func newIssuer(t *testing.T, change func(*ca.Config)) *issuer {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(t.TempDir(), "store"), TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := ca.Config{TrustDomain: td, Keys: ca.NewMemoryKeys(), Journal: s}
	change(&cfg)
	return &issuer{Authority: ca.New(cfg), t: t, store: s}
}

func (i *issuer) load() {
	i.t.Helper()
	if err := i.Load(i.t.Context()); err != nil {
		i.t.Fatal(err)
	}
}

// run runs the authority until the test ends.
func (i *issuer) run() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(i.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	i.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			i.t.Error(err)
		}
	})
}

func (i *issuer) bundle(ctx context.Context) *types.Bundle {
	var bundle *types.Bundle
	_, err := i.store.UpdateCA(ctx, func(s *store.CAState) error {
		bundle = s.Bundle
		return nil
	})
	if err != nil && ctx.Err() == nil { // who asked may have gone
		i.t.Error(err)
	}
	return bundle
}

// root returns the authority of the bundle with that key identifier.
func (i *issuer) root(id string) *types.X509Certificate {
	i.t.Helper()
	for _, authority := range i.bundle(i.t.Context()).X509Authorities {
		cert, err := x509.ParseCertificate(authority.Asn1)
		if err != nil {
			i.t.Fatal(err)
		}
		if hex.EncodeToString(cert.SubjectKeyId) == id {
			return authority
		}
	}
	return nil
}

func (i *issuer) x509Bundle(ctx context.Context) *x509bundle.Bundle {
	bundle := x509bundle.New(td)
	for _, authority := range i.bundle(ctx).GetX509Authorities() {
		cert, err := x509.ParseCertificate(authority.Asn1)
		if err != nil {
			i.t.Error(err)
			continue
		}
		bundle.AddX509Authority(cert)
	}
	return bundle
}

// until polls: there is no event for what a poller of another issuer has done.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}

// parent serves what a downstream issuer asks for, over mTLS, from an authority.
type parent struct {
	*issuer
	svidv1.UnimplementedSVIDServer
	bundlev1.UnimplementedBundleServer
	address *net.TCPAddr
	agent   *workloadtest.Server
	noJWT   bool
}

func newParent(t *testing.T) *parent {
	t.Helper()
	p := &parent{issuer: newIssuer(t, func(*ca.Config) {}), agent: workloadtest.New(t)}
	p.load()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.Addr().(*net.TCPAddr)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(mtls.Server(source{p.issuer}, mtls.Any, mtls.Options{}))))
	svidv1.RegisterSVIDServer(server, p)
	bundlev1.RegisterBundleServer(server, p)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p.renewAgent()
	p.agent.Start(t)
	return p
}

// source is what the parent's listener shows and trusts.
type source struct{ *issuer }

func (s source) Bundle(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.x509Bundle(context.WithoutCancel(s.t.Context())), nil
}

// renewAgent gives the downstream issuer an SVID of the parent's present
// authority.
func (p *parent) renewAgent() {
	p.t.Helper()
	p.agent.Set(p.t, []*x509svid.SVID{sign(p.t, p.issuer, "/downstream")}, p.x509Bundle(p.t.Context()))
}

func (p *parent) NewDownstreamX509CA(ctx context.Context, req *svidv1.NewDownstreamX509CARequest) (*svidv1.NewDownstreamX509CAResponse, error) {
	csr, err := ca.ParseCSR(req.Csr)
	if err != nil {
		return nil, err
	}
	chain, err := p.SignDownstreamCA(ctx, ca.DownstreamParams{PublicKey: csr.PublicKey, TTL: time.Duration(req.PreferredTtl) * time.Second})
	if err != nil {
		return nil, err
	}
	resp := &svidv1.NewDownstreamX509CAResponse{}
	for _, cert := range chain {
		resp.CaCertChain = append(resp.CaCertChain, cert.Raw)
	}
	return resp, nil
}

func (p *parent) GetBundle(ctx context.Context, _ *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	return p.bundle(ctx), nil
}

func (p *parent) PublishJWTAuthority(ctx context.Context, req *bundlev1.PublishJWTAuthorityRequest) (*bundlev1.PublishJWTAuthorityResponse, error) {
	if p.noJWT {
		return p.UnimplementedBundleServer.PublishJWTAuthority(ctx, req)
	}
	keys, err := p.PublishJWTKey(ctx, req.JwtAuthority)
	return &bundlev1.PublishJWTAuthorityResponse{JwtAuthorities: keys}, err
}

// below returns an issuer that the parent certifies.
func (p *parent) below() *issuer {
	p.t.Helper()
	return newIssuer(p.t, func(cfg *ca.Config) {
		spire := upstream.NewSPIRE(upstream.SPIREConfig{
			ServerAddress: p.address.IP.String(), ServerPort: p.address.Port,
			WorkloadAPISocket: p.agent.Addr(), TrustDomain: td, Poll: 10 * time.Millisecond,
		})
		p.t.Cleanup(spire.Close)
		cfg.Parent = spire
	})
}
