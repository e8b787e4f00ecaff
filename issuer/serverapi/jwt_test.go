package serverapi

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// verified parses a token with the bundle, as workloads do.
func (r *rig) verified(p *types.JWTSVID, audience string) *jwtsvid.SVID {
	r.tb.Helper()
	bundle := jwtbundle.New(td)
	for _, key := range r.deps.Registry.Bundle().GetJwtAuthorities() {
		public, err := x509.ParsePKIXPublicKey(key.GetPublicKey())
		must(r.tb, err)
		must(r.tb, bundle.AddJWTAuthority(key.GetKeyId(), public))
	}
	svid, err := jwtsvid.ParseAndValidate(p.GetToken(), bundle, []string{audience})
	must(r.tb, err)
	if p.GetId().GetPath() != svid.ID.Path() || p.GetExpiresAt() != svid.Expiry.Unix() || p.GetIssuedAt() == 0 {
		r.tb.Errorf("%v says otherwise than its token: %s until %s", p, svid.ID, svid.Expiry)
	}
	return svid
}

func TestNewJWTSVID(t *testing.T) {
	r := newRig(t)
	agent := r.join()
	c := svidv1.NewSVIDClient(r.as(agent))
	plain := r.entry(registration.Entry{SPIFFEID: spiffeID("/web"), ParentID: agent.ID})
	special := r.entry(registration.Entry{SPIFFEID: spiffeID("/db"), ParentID: agent.ID, JWTSVIDTTL: time.Minute, JWTSVIDIncludeJTI: true})
	foreign := r.entry(registration.Entry{SPIFFEID: spiffeID("/x"), ParentID: r.join().ID})
	ask := func(entry string, audience ...string) (*types.JWTSVID, error) {
		resp, err := c.NewJWTSVID(t.Context(), &svidv1.NewJWTSVIDRequest{EntryId: entry, Audience: audience})
		return resp.GetSvid(), err
	}
	p, err := ask(plain, "a", "b")
	must(t, err)
	svid := r.verified(p, "b")
	if svid.ID != spiffeID("/web") || len(svid.Audience) != 2 || p.ExpiresAt-p.IssuedAt != 300 || svid.Claims["jti"] != nil {
		t.Errorf("svid = %v, claims %v", p, svid.Claims)
	}
	p, err = ask(special, "a")
	must(t, err)
	if svid = r.verified(p, "a"); p.ExpiresAt-p.IssuedAt != 60 || svid.Claims["jti"] == nil {
		t.Errorf("svid = %v, claims %v", p, svid.Claims)
	}
	for _, entry := range []string{foreign, "", "made-up", plain + "~/web"} {
		_, err = ask(entry, "a")
		wantStatus(t, err, codes.NotFound, "entry not found or not authorized")
	}
	_, err = ask(plain)
	wantStatus(t, err, codes.InvalidArgument, "at least one audience is required")
	_, err = ask(plain, strings.Repeat("a", maxAudienceBytes+1))
	wantStatus(t, err, codes.InvalidArgument, "1 audiences of 4097 bytes in all: at most 100 of 4096 bytes")
	if strings.Contains(r.log.String(), p.Token) {
		t.Error("the log has a token")
	}
	if want := "audience=\"[a b]\""; !strings.Contains(r.log.String(), want) {
		t.Errorf("the log has no %s", want)
	}
}

func TestMintJWTSVID(t *testing.T) {
	r := newRig(t)
	c := svidv1.NewSVIDClient(r.local())
	mint := func(path string, ttl int32, audience ...string) (*types.JWTSVID, error) {
		resp, err := c.MintJWTSVID(t.Context(), &svidv1.MintJWTSVIDRequest{
			Id: &types.SPIFFEID{TrustDomain: "lanyard.test", Path: path}, Ttl: ttl, Audience: audience,
		})
		return resp.GetSvid(), err
	}
	p, err := mint("/job", 90, "a")
	must(t, err)
	if svid := r.verified(p, "a"); svid.ID != spiffeID("/job") || p.ExpiresAt-p.IssuedAt != 90 {
		t.Errorf("svid = %v", p)
	}
	_, err = mint("/job", 0)
	wantStatus(t, err, codes.InvalidArgument, "at least one audience is required")
	_, err = mint("/job", -1, "a")
	wantStatus(t, err, codes.InvalidArgument, "ttl must not be negative")
	_, err = mint("/spire/server", 0, "a")
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("reserved ID: %v", err)
	}
	_, err = c.MintJWTSVID(t.Context(), &svidv1.MintJWTSVIDRequest{Audience: []string{"a"}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("no ID: %v", err)
	}
	disabled := NewSVIDService(Deps{TrustDomain: td, CA: ca.New(ca.Config{TrustDomain: td, DisableJWT: true})})
	_, err = disabled.MintJWTSVID(t.Context(), &svidv1.MintJWTSVIDRequest{})
	wantStatus(t, err, codes.Unimplemented, "JWT functionality is disabled")
	_, err = disabled.NewJWTSVID(t.Context(), &svidv1.NewJWTSVIDRequest{})
	wantStatus(t, err, codes.Unimplemented, "JWT functionality is disabled")
}

func TestNewDownstreamX509CA(t *testing.T) {
	r := newRig(t)
	r.entry(registration.Entry{SPIFFEID: spiffeID("/nested"), ParentID: spiffeID("/spire/server"), Downstream: true})
	c := svidv1.NewSVIDClient(r.as(r.sign(spiffeID("/nested"))))
	key := newKey(t)
	resp, err := c.NewDownstreamX509CA(t.Context(), &svidv1.NewDownstreamX509CARequest{Csr: newCSR(t, key), PreferredTtl: 3600})
	must(t, err)
	cert, err := x509.ParseCertificate(resp.CaCertChain[0])
	must(t, err)
	if !cert.IsCA || cert.URIs[0].String() != "spiffe://lanyard.test" || time.Until(cert.NotAfter) > time.Hour+time.Minute || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("certificate: CA %v, %v, until %v", cert.IsCA, cert.URIs, cert.NotAfter)
	}
	roots := x509.NewCertPool()
	for _, der := range resp.X509Authorities {
		root, err := x509.ParseCertificate(der)
		must(t, err)
		roots.AddCert(root)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil || len(resp.X509Authorities) != 1 {
		t.Errorf("%d authorities: %v", len(resp.X509Authorities), err)
	}
	if want := "serial=" + cert.SerialNumber.String(); !strings.Contains(r.log.String(), want) {
		t.Errorf("the log has no %s", want)
	}
	forged := newCSR(t, key)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{"none": nil, "garbage": []byte("x"), "forged": forged} {
		if _, err := c.NewDownstreamX509CA(t.Context(), &svidv1.NewDownstreamX509CARequest{Csr: csr}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("CSR %s: %v", name, err)
		}
	}
}
