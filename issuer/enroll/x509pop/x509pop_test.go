package x509pop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pop "github.com/lanyard-mtls/lanyard/internal/nodeattest/x509pop"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/x509pop"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pki signs leaves.
type pki struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
	file string
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t}
	p.cert, p.key = p.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "corporate root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, ecKey(t))
	p.file = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(p.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}), 0o600))
	return p
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// make signs tmpl for key, by itself before there is a root.
func (p *pki) make(tmpl *x509.Certificate, key crypto.Signer) (*x509.Certificate, crypto.Signer) {
	p.t.Helper()
	tmpl.SerialNumber = big.NewInt(0xabc)
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := tmpl, key
	if p.cert != nil {
		parent, signer = p.cert, p.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	must(p.t, err)
	cert, err := x509.ParseCertificate(der)
	must(p.t, err)
	return cert, key
}

func leaf() *x509.Certificate {
	uri, _ := url.Parse("x509pop://lanyard.test/rack/r7/u12")
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "node-1"}, KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.ParseIP("192.0.2.7")},
	}
}

// talk is a conversation with a holder of key that shows chain.
func talk(t *testing.T, key crypto.Signer, chain ...[]byte) enroll.Conversation {
	t.Helper()
	payload, err := pop.NewPayload(chain)
	must(t, err)
	return enroll.Conversation{
		Payload: payload, Now: time.Now(), Peer: netip.MustParseAddr("192.0.2.7"),
		Challenge: func(_ context.Context, challenge []byte) ([]byte, error) { return pop.Respond(key, challenge) },
	}
}

func (p *pki) method(change ...func(*x509pop.Config)) *x509pop.Method {
	p.t.Helper()
	cfg := x509pop.Config{TrustDomain: td, CABundlePaths: []string{p.file}}
	for _, f := range change {
		f(&cfg)
	}
	m, err := x509pop.New(cfg)
	must(p.t, err)
	return m
}

func values(e enroll.Evidence) []string {
	var all []string
	for _, s := range e.Selectors {
		all = append(all, s.String())
	}
	return all
}

func TestCertificateOfAKnownAuthority(t *testing.T) {
	p := newPKI(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for name, key := range map[string]crypto.Signer{"ECDSA": ecKey(t), "RSA": rsaKey} {
		cert, _ := p.make(leaf(), key)
		e, err := p.method().Attest(t.Context(), talk(t, key, cert.Raw))
		must(t, err)
		if want := "spiffe://lanyard.test/spire/agent/x509pop/" + pop.Fingerprint(cert); e.ID.String() != want || !e.Reattestable {
			t.Errorf("%s: %+v, want %s", name, e, want)
		}
		want := []string{"x509pop:subject:cn:node-1", "x509pop:ca:fingerprint:" + pop.Fingerprint(p.cert), "x509pop:serialnumber:0abc", "x509pop:san:rack:r7/u12"}
		if got := values(e); !slices.Equal(got, want) {
			t.Errorf("%s: selectors %q, want %q", name, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	key := ecKey(t)
	cert, _ := p.make(leaf(), key)
	foreign, _ := other.make(leaf(), key)
	noSigning := leaf()
	noSigning.KeyUsage = x509.KeyUsageKeyEncipherment
	encrypts, _ := p.make(noSigning, key)
	elsewhere := talk(t, key, cert.Raw)
	elsewhere.Peer = netip.MustParseAddr("192.0.2.8")
	expired := talk(t, key, cert.Raw)
	expired.Now = time.Now().Add(2 * time.Hour)
	garbled := talk(t, key, cert.Raw)
	garbled.Payload = []byte("{")
	for name, test := range map[string]struct {
		c    enroll.Conversation
		kind error
		want string
	}{
		"another authority":  {talk(t, key, foreign.Raw), enroll.ErrRefused, "certificate verification failed"},
		"another key":        {talk(t, ecKey(t), cert.Raw), enroll.ErrRefused, "challenge response verification failed"},
		"not for signatures": {talk(t, key, encrypts.Raw), enroll.ErrRefused, "not intended for digital signature use"},
		"expired":            {expired, enroll.ErrRefused, "certificate verification failed"},
		"another address":    {elsewhere, enroll.ErrRefused, "client IP 192.0.2.8 does not match any certificate IP SAN"},
		"no JSON":            {garbled, enroll.ErrMalformed, "failed to unmarshal data"},
		"no certificate":     {talk(t, key, []byte("junk")), enroll.ErrMalformed, "leaf certificate"},
	} {
		_, err := p.method(func(c *x509pop.Config) { c.VerifyClientIP = true }).Attest(t.Context(), test.c)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// A chain that is too long, or a key that is, costs no more than to count it: here
// nothing behind the leaf is even a certificate.
func TestGuardX509POPChainLimit(t *testing.T) {
	p := newPKI(t)
	key := ecKey(t)
	cert, _ := p.make(leaf(), key)
	chain := [][]byte{cert.Raw, []byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e")}
	asked := false
	c := talk(t, key, chain...)
	c.Challenge = func(context.Context, []byte) ([]byte, error) { asked = true; return nil, errors.New("no") }
	_, err := p.method().Attest(t.Context(), c)
	if !errors.Is(err, enroll.ErrMalformed) || !strings.Contains(err.Error(), "too many intermediate certificates") || asked {
		t.Errorf("%v, asked %t", err, asked)
	}
	_, err = p.method(func(c *x509pop.Config) { c.MaxIntermediates = 5 }).Attest(t.Context(), talk(t, key, chain...))
	if err == nil || strings.Contains(err.Error(), "too many") {
		t.Errorf("with max_intermediates = 5: %v", err)
	}
	huge, err := json.Marshal(map[string][][]byte{"certificates": {make([]byte, 1<<20)}})
	must(t, err)
	c.Payload = huge
	if _, err := p.method().Attest(t.Context(), c); !errors.Is(err, enroll.ErrMalformed) || !strings.Contains(err.Error(), "bytes, at most") {
		t.Errorf("a megabyte: %v", err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 3072)
	must(t, err)
	cert, _ = p.make(leaf(), long)
	_, err = p.method(func(c *x509pop.Config) { c.MaxRSABits = 2048 }).Attest(t.Context(), talk(t, long, cert.Raw))
	if !errors.Is(err, enroll.ErrMalformed) || !strings.Contains(err.Error(), "key size too large") {
		t.Errorf("an RSA key of 3072 bits: %v", err)
	}
}

func TestAgentPathTemplate(t *testing.T) {
	p := newPKI(t)
	key := ecKey(t)
	cert, _ := p.make(leaf(), key)
	for template, want := range map[string]string{
		`/{{ .PluginName }}/{{ .Subject.CommonName | upper }}`:           "/x509pop/NODE-1",
		`/x509pop/{{ .SerialNumberHex }}/{{ .TrustDomain }}`:             "/x509pop/0abc/lanyard.test",
		`/x509pop/{{ index .URISanSelectors "rack" | replace "/" "-" }}`: "/x509pop/r7-u12",
	} {
		e, err := p.method(func(c *x509pop.Config) { c.AgentPathTemplate = template }).Attest(t.Context(), talk(t, key, cert.Raw))
		must(t, err)
		if e.ID.Path() != "/spire/agent"+want {
			t.Errorf("%s: %s", template, e.ID)
		}
	}
	for _, template := range []string{"x509pop/x", "/x509pop/{{ .URISanSelectors.none }}", "/x509pop/a b", "/x509pop/../x"} {
		m := p.method(func(c *x509pop.Config) { c.AgentPathTemplate = template })
		if e, err := m.Attest(t.Context(), talk(t, key, cert.Raw)); err == nil {
			t.Errorf("%s made %s", template, e.ID)
		}
	}
}

func TestSPIFFEMode(t *testing.T) {
	ca, foreign := testca.New(t, "lanyard.test"), testca.New(t, "other.test")
	method := func(prefix string) *x509pop.Method {
		m, err := x509pop.New(x509pop.Config{TrustDomain: td, Mode: "spiffe", SPIFFEPrefix: prefix, Bundle: func() (*x509bundle.Bundle, error) { return ca.Bundle(), nil }})
		must(t, err)
		return m
	}
	for id, want := range map[string]string{
		"spiffe://lanyard.test/spire-exchange/rack/7":  "/spire/agent/x509pop/rack/7",
		"spiffe://lanyard.test/spire-exchangex/rack/7": "",
		"spiffe://lanyard.test/web":                    "",
	} {
		svid := ca.SVID(t, id)
		e, err := method("").Attest(t.Context(), talk(t, svid.PrivateKey, svid.Certificates[0].Raw))
		if want == "" {
			if !errors.Is(err, enroll.ErrRefused) {
				t.Errorf("%s: %v", id, err)
			}
			continue
		}
		must(t, err)
		if e.ID.Path() != want {
			t.Errorf("%s became %s", id, e.ID)
		}
	}
	svid := ca.SVID(t, "spiffe://lanyard.test/web/1")
	e, err := method("/web").Attest(t.Context(), talk(t, svid.PrivateKey, svid.Certificates[0].Raw))
	must(t, err)
	if e.ID.Path() != "/spire/agent/x509pop/1" {
		t.Error(e.ID)
	}
	// Of another trust domain: by its own authority, and by ours, as happens below
	// a common upstream authority. SPIRE looks at the path alone.
	theirs := foreign.SVID(t, "spiffe://other.test/spire-exchange/x")
	shared := ca.SVID(t, "spiffe://other.test/spire-exchange/x")
	for name, svid := range map[string]interface {
		Marshal() ([]byte, []byte, error)
	}{"theirs": theirs, "shared": shared} {
		chain, _, err := svid.Marshal()
		must(t, err)
		block, _ := pem.Decode(chain)
		key := theirs.PrivateKey
		if name == "shared" {
			key = shared.PrivateKey
		}
		if _, err := method("").Attest(t.Context(), talk(t, key, block.Bytes)); !errors.Is(err, enroll.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	p := newPKI(t)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	must(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for want, cfg := range map[string]x509pop.Config{
		"one of ca_bundle_path or ca_bundle_paths must be configured": {},
		"no such file or directory":                                   {CABundlePaths: []string{"/no/such/file"}},
		"has no PEM certificate":                                      {CABundlePaths: []string{junk}},
		`mode "spire": want external_pki or spiffe`:                   {Mode: "spire"},
		"cannot be used in spiffe mode":                               {Mode: "spiffe", CABundlePaths: []string{p.file}},
		"max_intermediates must be greater than 0":                    {CABundlePaths: []string{p.file}, MaxIntermediates: -1},
		`function "camelcase" is known to SPIRE, not supported yet`:   {CABundlePaths: []string{p.file}, AgentPathTemplate: "/{{ camelcase .PluginName }}"},
		`function "env" not defined`:                                  {CABundlePaths: []string{p.file}, AgentPathTemplate: `/{{ env "HOME" }}`},
	} {
		if _, err := x509pop.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
