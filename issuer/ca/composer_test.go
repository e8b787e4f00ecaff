package ca_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// The value is SPIRE's for the same ID: half of a SHA-256, as sha256sum has it.
func TestUniqueID(t *testing.T) {
	s := newSite(t)
	a := s.with(func(cfg *ca.Config) { cfg.Composers = []ca.Composer{ca.UniqueID()} })
	chain, err := a.SignX509SVID(t.Context(), ca.Params{ID: spiffeid.RequireFromString("spiffe://lanyard.test/web"), PublicKey: newKey(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	// printf spiffe://lanyard.test/web | sha256sum | cut -c1-32
	const want = "186502272a5e9678d93e9bc5d53213db"
	if got := chain[0].Subject.String(); got != "O=SPIRE,C=US,2.5.4.45=#1320"+hexOf([]byte(want)) {
		t.Errorf("subject %s", got)
	}
	agent, err := a.SignAgentSVID(t.Context(), spiffeid.RequireFromString("spiffe://lanyard.test/spire/agent/x"), newKey(t).Public())
	if err != nil || agent[0].Subject.String() != "O=SPIRE,C=US" {
		t.Errorf("an agent's subject is %v, %v", agent[0].Subject, err)
	}
}

// composed is a composer of the test's.
type composed struct {
	x509 func(ca.Role, *x509.Certificate) error
	jwt  func(map[string]any) error
}

func (c composed) ComposeX509(_ context.Context, role ca.Role, _ spiffeid.ID, template *x509.Certificate) error {
	if c.x509 == nil {
		return nil
	}
	return c.x509(role, template)
}

func (c composed) ComposeJWT(_ context.Context, _ spiffeid.ID, claims map[string]any) error {
	if c.jwt == nil {
		return nil
	}
	return c.jwt(claims)
}

// A composer adds; it cannot take the identity, the end or the profile away.
func TestComposerStaysWithinBounds(t *testing.T) {
	s := newSite(t)
	extension := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}
	a := s.with(func(cfg *ca.Config) {
		cfg.Composers = []ca.Composer{composed{
			x509: func(role ca.Role, c *x509.Certificate) error {
				c.Subject.Locality = []string{"here"}
				c.ExtraExtensions = append(c.ExtraExtensions, extension)
				if role == ca.RoleWorkload {
					c.DNSNames = []string{"composed.test"}
				}
				c.NotAfter = c.NotAfter.AddDate(100, 0, 0)
				c.IsCA = !c.IsCA
				c.URIs = nil
				c.KeyUsage = 0
				return nil
			},
			jwt: func(claims map[string]any) error {
				claims["sub"], claims["exp"], claims["team"] = "spiffe://other.test/x", int64(1)<<60, "a"
				delete(claims, "iat")
				return nil
			},
		}}
	})
	leaf := sign(t, a)
	if len(leaf.URIs) != 1 || leaf.IsCA || leaf.NotAfter.After(epoch.Add(time.Hour)) || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		t.Errorf("%v %v %v %v", leaf.URIs, leaf.IsCA, leaf.NotAfter, leaf.KeyUsage)
	}
	if leaf.Subject.Locality[0] != "here" || leaf.DNSNames[0] != "composed.test" {
		t.Errorf("%v %v", leaf.Subject, leaf.DNSNames)
	}
	if err := leaf.CheckSignatureFrom(s.bundle()[string(leaf.AuthorityKeyId)]); err != nil {
		t.Error(err)
	}
	found := false
	for _, e := range leaf.Extensions {
		found = found || e.Id.Equal(extension.Id)
	}
	if !found {
		t.Error("the composer's extension is missing")
	}
	svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if claims := part(t, svid.Token, 1); claims["sub"] != web.String() || claims["team"] != "a" || claims["iat"] == nil || claims["exp"].(float64) > 1<<40 {
		t.Errorf("%v", claims)
	}
}

func TestComposerRefuses(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate) error{
		"an error":   func(*x509.Certificate) error { return errBroken },
		"a DNS name": func(c *x509.Certificate) error { c.DNSNames = []string{"a b"}; return nil },
		"a profile extension": func(c *x509.Certificate) error {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}}}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			a := s.with(func(cfg *ca.Config) {
				cfg.Composers = []ca.Composer{composed{x509: func(role ca.Role, c *x509.Certificate) error {
					if role != ca.RoleWorkload {
						return nil
					}
					return change(c)
				}}}
			})
			_, err := a.SignX509SVID(t.Context(), ca.Params{ID: web, PublicKey: newKey(t).Public()})
			if !errors.Is(err, ca.ErrParams) || !strings.Contains(err.Error(), "composer") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSignDownstreamCA(t *testing.T) {
	s := newSite(t)
	a := s.start()
	key := newKey(t)
	chain, err := a.SignDownstreamCA(t.Context(), ca.DownstreamParams{PublicKey: key.Public(), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert := chain[0]
	root := s.bundle()[string(cert.AuthorityKeyId)]
	if len(chain) != 1 || root == nil || cert.CheckSignatureFrom(root) != nil {
		t.Fatalf("%d certificates, signed by %x", len(chain), cert.AuthorityKeyId)
	}
	if !cert.IsCA || cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || cert.MaxPathLen > 0 || cert.MaxPathLenZero ||
		cert.URIs[0].String() != "spiffe://lanyard.test" || !cert.NotAfter.Equal(epoch.Add(time.Hour)) {
		t.Errorf("%+v", cert)
	}
	if ou := cert.Subject.OrganizationalUnit; len(ou) != 1 || ou[0] != "DOWNSTREAM-1" || cert.Subject.Organization[0] != "SPIFFE" {
		t.Errorf("subject %s", cert.Subject)
	}
	if cert.Subject.SerialNumber == root.Subject.SerialNumber {
		t.Error("siblings have one subject")
	}
	long, err := a.SignDownstreamCA(t.Context(), ca.DownstreamParams{PublicKey: key.Public(), TTL: 100 * time.Hour})
	if err != nil || !long[0].NotAfter.Equal(root.NotAfter) {
		t.Errorf("%v, %v: it must end with its signer", long, err)
	}
	if _, err := a.SignDownstreamCA(t.Context(), ca.DownstreamParams{PublicKey: "no key"}); !errors.Is(err, ca.ErrParams) {
		t.Errorf("%v", err)
	}
}
