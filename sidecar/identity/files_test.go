package identity_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func TestEachKindOfFile(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	cert, key := ca.Leaf(t, testca.Host("localhost"))
	pair := f.pair(cert, key)
	roots := f.write("ca.pem", testca.PEM(ca.Cert))
	tests := map[string]identity.Config{
		"PEM pair":                  pair,
		"PEM pair with authorities": {Cert: pair.Cert, Key: pair.Key, CACert: roots},
		"combined PEM":              {Keystore: f.write("both.pem", testca.PEM(cert), testca.KeyPEM(t, key))},
		"combined PEM, key first":   {Keystore: f.write("first.pem", testca.KeyPEM(t, key), testca.PEM(cert, ca.Cert))},
		"leaf last":                 {Keystore: f.write("last.pem", testca.PEM(ca.Cert, cert), testca.KeyPEM(t, key))},
		"both in the same file":     {Cert: f.path("both.pem"), Key: f.path("both.pem")},
		"PKCS#12":                   {Keystore: "keystore/testdata/rsa.p12", StorePass: "changeit"},
		"JCEKS":                     {Keystore: "keystore/testdata/ed25519.jceks", StorePass: "changeit"},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			s := load(t, cfg, identity.Deps{})
			i := current(t, s)
			if c := i.Certificate(); c == nil || c.Leaf == nil || c.Leaf.IsCA {
				t.Fatalf("certificate %v", c)
			}
			if i.IsSPIFFE() || !i.ID().IsZero() || (i.Roots() != nil) != (cfg.CACert != "") {
				t.Errorf("SPIFFE %v, ID %s, roots %v", i.IsSPIFFE(), i.ID(), i.Roots())
			}
			st := s.Status()
			if st.Err != nil || st.Subject == "" || st.NotAfter.IsZero() || st.NotBefore.IsZero() || st.LastUpdate.IsZero() || st.Source == "" {
				t.Errorf("status %+v", st)
			}
			if len(st.Bundles) > 0 != (cfg.CACert != "") {
				t.Errorf("bundles %+v", st.Bundles)
			}
			if strings.Contains(st.Source, "changeit") {
				t.Error("the status tells the password")
			}
		})
	}
}

func TestNoCertificate(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	s := load(t, identity.Config{None: true, CACert: f.write("ca.pem", testca.PEM(ca.Cert))}, identity.Deps{})
	if i := current(t, s); i.Certificate() != nil || i.Roots() == nil || s.Status().Err != nil {
		t.Errorf("%+v, %+v", i, s.Status())
	}
	s = load(t, identity.Config{None: true}, identity.Deps{})
	if i := current(t, s); i.Certificate() != nil || i.Roots() != nil {
		t.Errorf("%+v", i)
	}
}

// Whatever is wrong with any of the files, everything stays as it was.
func TestReloadIsAllOrNothing(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	svid, other := ca.SVID(t, "spiffe://one.test/a"), ca.SVID(t, "spiffe://one.test/a")
	good := map[string][]byte{
		"cert.pem": testca.PEM(svid.Certificates[0]), "key.pem": testca.KeyPEM(t, svid.PrivateKey),
		"one.pem": testca.PEM(ca.Cert), "two.json": jwks(t, "two.test"),
	}
	twice := testca.PEM(ca.Cert, testca.New(t, "one.test").Cert)
	restore := func() {
		for name, data := range good {
			f.write(name, data)
		}
	}
	restore()
	s := load(t, identity.Config{Cert: f.path("cert.pem"), Key: f.path("key.pem"),
		TrustBundles: map[string]string{"one.test": f.path("one.pem"), "two.test": f.path("two.json")}}, identity.Deps{})
	twoURIs := ca.SVID(t, "spiffe://one.test/a", func(c *x509.Certificate) {
		c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "one.test", Path: "/b"})
	})
	tests := map[string]struct {
		file string
		data []byte
		want string
	}{
		"certificate missing":        {"cert.pem", nil, "cert %: no such file or directory"},
		"certificate empty":          {"cert.pem", []byte{}, "cert %: holds no certificate"},
		"certificate garbage":        {"cert.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cert %: certificate 1: "},
		"another's certificate":      {"cert.pem", testca.PEM(other.Certificates[0]), "cert %: the private key belongs to none of its certificates"},
		"authority as certificate":   {"cert.pem", testca.PEM(ca.Cert), "cert %: the private key belongs to none"},
		"key missing":                {"key.pem", nil, "key %: no such file or directory"},
		"key empty":                  {"key.pem", []byte{}, "key %: holds no PEM private key"},
		"key cut off":                {"key.pem", good["key.pem"][:60], "key %: 1 of 1 PEM blocks is damaged"},
		"another's key":              {"key.pem", testca.KeyPEM(t, other.PrivateKey), "the private key belongs to none"},
		"bundle missing":             {"one.pem", nil, "trust_bundle %: no such file or directory"},
		"bundle empty":               {"one.pem", []byte{}, "trust_bundle %: as the bundle of one.test: holds no PEM certificate"},
		"bundle garbage":             {"one.pem", []byte("garbage"), "trust_bundle %: as the bundle of one.test: holds no PEM certificate"},
		"bundle half written":        {"one.pem", twice[:len(twice)-30], "as the bundle of one.test: 1 of 2 PEM blocks is damaged"},
		"another's authority":        {"one.pem", testca.PEM(ca.Cert, testca.New(t, "two.test").Cert), "an authority of trust domain two.test"},
		"SPIFFE bundle of another":   {"two.json", jwks(t, "one.test"), "an authority of trust domain one.test"},
		"SPIFFE bundle garbage":      {"two.json", []byte("{"), "trust_bundle %: as the SPIFFE bundle of two.test: "},
		"SPIFFE bundle empty":        {"two.json", []byte(`{"keys":[]}`), "trust_bundle %: the SPIFFE bundle of two.test has no X.509 authority"},
		"SPIFFE bundle without keys": {"two.json", []byte(`{}`), "trust_bundle %: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := current(t, s)
			if tt.data == nil {
				if err := os.Remove(f.path(tt.file)); err != nil {
					t.Fatal(err)
				}
			} else {
				f.write(tt.file, tt.data)
			}
			err := s.Reload(t.Context())
			want := strings.ReplaceAll(tt.want, "%", f.path(tt.file))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
			if current(t, s) != before {
				t.Error("the good one was replaced")
			}
			if st := s.Status(); st.Err != nil || st.ConnectionErr == nil {
				t.Errorf("status %+v", st)
			}
			if e, ok := errors.AsType[*setting.Error](err); !ok || e.Value == "" {
				t.Errorf("%T does not name the setting", err)
			}
			restore()
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := current(t, s); after == before || after.Version() <= before.Version() {
				t.Error("a reload that succeeds must be a new version: old session tickets end with it")
			}
			if st := s.Status(); st.ConnectionErr != nil {
				t.Errorf("status %+v", st)
			}
		})
	}
	f.write("cert.pem", testca.PEM(twoURIs.Certificates[0]))
	f.write("key.pem", testca.KeyPEM(t, twoURIs.PrivateKey))
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "more than one URI SAN") {
		t.Error(err)
	}
}

// jwks is a SPIFFE bundle of a new authority of td.
func jwks(t *testing.T, td string) []byte {
	t.Helper()
	ca := testca.New(t, td)
	data, err := spiffebundle.FromX509Authorities(ca.TrustDomain, []*x509.Certificate{ca.Cert}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSVIDsInFiles(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, "spiffe://one.test/a")
	cfg := f.pair(svid.Certificates[0], svid.PrivateKey)
	cfg.TrustBundles = map[string]string{"one.test": f.write("one.pem", testca.PEM(ca.Cert)), "two.test": f.write("two", jwks(t, "two.test"))}
	s := load(t, cfg, identity.Deps{})
	i := current(t, s)
	if !i.IsSPIFFE() || i.ID() != svid.ID || i.Certificate() == nil {
		t.Errorf("identity %+v", i)
	}
	for _, td := range []string{"one.test", "two.test"} {
		b, err := i.Bundle(spiffeid.RequireTrustDomainFromString(td))
		if err != nil || len(b.X509Authorities()) != 1 {
			t.Errorf("bundle of %s: %v, %v", td, b, err)
		}
	}
	if _, err := i.Bundle(spiffeid.RequireTrustDomainFromString("three.test")); err == nil {
		t.Error("there is a bundle of an unknown trust domain")
	}
	st := s.Status()
	if st.SPIFFEID != "spiffe://one.test/a" || st.Subject != "" || len(st.Bundles) != 2 || st.Bundles[1].TrustDomain != "two.test" ||
		st.Bundles[1].Authorities != 1 || st.Bundles[1].NotAfter.IsZero() {
		t.Errorf("status %+v", st)
	}

	// Nothing less than an X.509-SVID will do.
	for want, opt := range map[string]testca.Option{
		"no URI SAN":               testca.Host("localhost"),
		"names a trust domain":     func(c *x509.Certificate) { c.URIs[0].Path = "" },
		"may sign certificates":    func(c *x509.Certificate) { c.IsCA = true },
		"may sign certificates or": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"digitalSignature":         func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
	} {
		bad := ca.SVID(t, "spiffe://one.test/a", opt)
		f.pair(bad.Certificates[0], bad.PrivateKey)
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	bad := ca.SVID(t, "spiffe://one.test/a")
	f.pair(bad.Certificates[0], bad.PrivateKey)
	f.write("cert.pem", testca.PEM(bad.Certificates[0], svid.Certificates[0]))
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "may not sign any") {
		t.Error(err)
	}
}

func TestExpiredFiles(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, "spiffe://one.test/a", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	cfg := f.pair(svid.Certificates[0], svid.PrivateKey)
	// A certificate that is no SVID is shown as long as it is there: its peers may look at its key alone.
	if i := current(t, load(t, cfg, identity.Deps{})); i.Certificate() == nil {
		t.Error("not shown")
	}
	cfg.TrustBundles = map[string]string{"one.test": f.write("one.pem", testca.PEM(ca.Cert))}
	s := load(t, cfg, identity.Deps{})
	if _, err := s.Current(); !errors.Is(err, identity.ErrExpired) || errors.Is(err, identity.ErrNone) {
		t.Errorf("error %v", err)
	}
	if st := s.Status(); !errors.Is(st.Err, identity.ErrExpired) || st.SPIFFEID == "" || st.NotAfter.IsZero() {
		t.Errorf("status %+v", st)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := s.Wait(t.Context())
		waited <- err
	}()
	svid = ca.SVID(t, "spiffe://one.test/a")
	f.pair(svid.Certificates[0], svid.PrivateKey)
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestNothingBeforeLoad(t *testing.T) {
	s, err := identity.New(identity.Config{None: true}, identity.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Current(); !errors.Is(err, identity.ErrNone) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Wait(ctx); !errors.Is(err, identity.ErrNone) {
		t.Error(err)
	}
}

// A key in a module is opened once, and belongs to one certificate.
func TestPKCS11KeepsTheKey(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	cert, key := ca.Leaf(t)
	opened := 0
	deps := identity.Deps{PKCS11: func(p identity.PKCS11, pub crypto.PublicKey) (crypto.Signer, error) {
		if opened++; !key.PublicKey.Equal(pub) {
			return nil, errors.New("no such key")
		}
		return key, nil
	}}
	cfg := f.pair(cert, key)
	cfg.Key, cfg.PKCS11 = "", identity.PKCS11{Module: "/m.so", TokenLabel: "t", PIN: "secret"}
	s := load(t, cfg, deps)
	renewed := ca.Sign(t, "", &key.PublicKey, testca.Host())
	f.write("cert.pem", testca.PEM(renewed))
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	held := current(t, s)
	if opened != 1 || !held.Certificate().Leaf.Equal(renewed) {
		t.Errorf("opened %d times", opened)
	}
	another, _ := ca.Leaf(t)
	f.write("cert.pem", testca.PEM(another))
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "another public key") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if current(t, s) != held {
		t.Error("the good one was replaced")
	}
	if _, err := identity.New(cfg, identity.Deps{}); err == nil || !strings.Contains(err.Error(), "built without PKCS#11") {
		t.Error(err)
	}
}
