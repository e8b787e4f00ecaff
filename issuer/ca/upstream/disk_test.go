package upstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/ca/upstream"
)

// corporate is an authority as companies have it: no SPIFFE ID, a path length.
type corporate struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCorporate(t testing.TB, name string, above *corporate, pathLen int, ends time.Time) *corporate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: ends,
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
	}
	c := &corporate{key: key}
	if above == nil {
		above = &corporate{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above.cert, key.Public(), above.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func day() time.Time { return time.Now().Add(24 * time.Hour) }

func TestDiskSelfSigned(t *testing.T) {
	dir := t.TempDir()
	root := newCorporate(t, "root", nil, -1, day())
	cfg := upstream.DiskConfig{CertFile: write(t, dir, "cert.pem", testca.PEM(root.cert)), KeyFile: write(t, dir, "key.pem", testca.KeyPEM(t, root.key))}
	i := newIssuer(t, func(cfg2 *ca.Config) { cfg2.Parent = upstream.NewDisk(cfg) })
	i.load()
	svid := sign(t, i, "/web")
	if len(svid.Certificates) != 2 {
		t.Errorf("%d certificates", len(svid.Certificates))
	}
	if _, _, err := x509svid.Verify(svid.Certificates, i.x509Bundle(t.Context())); err != nil {
		t.Error(err)
	}
	if end := svid.Certificates[1].NotAfter; end.After(root.cert.NotAfter) {
		t.Errorf("the authority outlives its root: %s", end)
	}
	states, err := i.X509State()
	if err != nil || states.Active.UpstreamSubjectKeyID != hex.EncodeToString(root.cert.SubjectKeyId) {
		t.Errorf("%+v, %v", states.Active, err)
	}

	// Renewed in place: the next authority is below the new one.
	renewed := newCorporate(t, "renewed", nil, -1, day())
	write(t, dir, "cert.pem", testca.PEM(renewed.cert))
	if _, err := i.PrepareX509(t.Context()); err == nil || !strings.Contains(err.Error(), "is not that of the first certificate") {
		t.Errorf("half of the files renewed: %v", err)
	}
	write(t, dir, "key.pem", testca.KeyPEM(t, renewed.key))
	prepared, err := i.PrepareX509(t.Context())
	if err != nil || prepared.UpstreamSubjectKeyID != hex.EncodeToString(renewed.cert.SubjectKeyId) {
		t.Fatalf("%+v, %v", prepared, err)
	}
	if i.root(states.Active.UpstreamSubjectKeyID) == nil || i.root(prepared.UpstreamSubjectKeyID) == nil {
		t.Error("the bundle lacks the old root or the new")
	}
}

// A root that is tainted and still the only one on disk must not sign again, and
// what signs now goes on.
func TestDiskStillHasTheTaintedRoot(t *testing.T) {
	dir := t.TempDir()
	root := newCorporate(t, "root", nil, -1, day())
	cfg := upstream.DiskConfig{CertFile: write(t, dir, "cert.pem", testca.PEM(root.cert)), KeyFile: write(t, dir, "key.pem", testca.KeyPEM(t, root.key))}
	i := newIssuer(t, func(cfg2 *ca.Config) { cfg2.Parent = upstream.NewDisk(cfg) })
	i.load()
	first, err := i.X509State()
	if err != nil {
		t.Fatal(err)
	}
	renewed := newCorporate(t, "renewed", nil, -1, day())
	write(t, dir, "cert.pem", testca.PEM(renewed.cert))
	write(t, dir, "key.pem", testca.KeyPEM(t, renewed.key))
	prepared, err := i.PrepareX509(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.ActivateX509(t.Context(), prepared.ID); err != nil {
		t.Fatal(err)
	}
	if err := i.TaintX509Upstream(t.Context(), first.Active.UpstreamSubjectKeyID); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", testca.PEM(root.cert))
	write(t, dir, "key.pem", testca.KeyPEM(t, root.key))
	if _, err := i.PrepareX509(t.Context()); err == nil || !strings.Contains(err.Error(), "which is tainted") {
		t.Errorf("below a tainted root: %v", err)
	}
	if err := i.RevokeX509Upstream(t.Context(), first.Active.UpstreamSubjectKeyID); err == nil {
		if _, err := i.PrepareX509(t.Context()); err == nil || !strings.Contains(err.Error(), "which was revoked here") {
			t.Errorf("below a revoked root: %v", err)
		}
	}
	sign(t, i, "/web")
}

func TestDiskWithIntermediate(t *testing.T) {
	dir := t.TempDir()
	root := newCorporate(t, "root", nil, 2, day())
	middle := newCorporate(t, "middle", root, 1, day())
	cfg := upstream.DiskConfig{
		CertFile:   write(t, dir, "cert.pem", testca.PEM(middle.cert, root.cert)),
		KeyFile:    write(t, dir, "key.pem", testca.KeyPEM(t, middle.key)),
		BundleFile: write(t, dir, "bundle.pem", testca.PEM(root.cert)),
	}
	i := newIssuer(t, func(cfg2 *ca.Config) { cfg2.Parent = upstream.NewDisk(cfg) })
	i.load()
	svid := sign(t, i, "/web")
	if len(svid.Certificates) != 3 {
		t.Errorf("%d certificates: want leaf, authority and intermediate, without the root", len(svid.Certificates))
	}
	if _, _, err := x509svid.Verify(svid.Certificates, i.x509Bundle(t.Context())); err != nil {
		t.Error(err)
	}
	states, err := i.X509State()
	if err != nil || states.Active.UpstreamSubjectKeyID != hex.EncodeToString(root.cert.SubjectKeyId) {
		t.Errorf("%+v, %v: want the root's", states.Active, err)
	}
}

// Only what a peer will accept is ever used.
func TestDiskThatCannotHaveAuthoritiesBelow(t *testing.T) {
	dir := t.TempDir()
	root := newCorporate(t, "root", nil, 0, day())
	cfg := upstream.DiskConfig{CertFile: write(t, dir, "cert.pem", testca.PEM(root.cert)), KeyFile: write(t, dir, "key.pem", testca.KeyPEM(t, root.key))}
	i := newIssuer(t, func(cfg2 *ca.Config) { cfg2.Parent = upstream.NewDisk(cfg) })
	if err := i.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "a leaf that it signs is not valid below the roots") {
		t.Errorf("%v", err)
	}
	if n := len(i.bundle(t.Context()).X509Authorities); n != 0 {
		t.Errorf("%d authorities were published", n)
	}
}

func TestDiskErrors(t *testing.T) {
	dir := t.TempDir()
	root, other := newCorporate(t, "root", nil, -1, day()), newCorporate(t, "other", nil, -1, day())
	middle := newCorporate(t, "middle", root, -1, day())
	expired := newCorporate(t, "expired", nil, -1, time.Now().Add(-time.Minute))
	leaf, leafKey := testca.New(t, "lanyard.test").Leaf(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	certificate, key := testca.PEM(root.cert), testca.KeyPEM(t, root.key)
	for name, tt := range map[string]struct {
		cert, key, bundle []byte
		want              string
	}{
		"no certificate":        {[]byte("hello"), key, nil, "cert_file_path: CERT: holds no PEM certificate"},
		"a key for certificate": {key, key, nil, "is a PRIVATE KEY: want CERTIFICATE"},
		"no key":                {certificate, certificate, nil, "key_file_path: KEYFILE: holds no PEM private key"},
		"encrypted key":         {certificate, encrypted, nil, "has a passphrase: take it off"},
		"another's key":         {certificate, testca.KeyPEM(t, other.key), nil, "is not that of the first certificate"},
		"a key of another kind": {certificate, testca.KeyPEM(t, rsaKey), nil, "is not that of the first certificate"},
		"two without a bundle":  {testca.PEM(middle.cert, root.cert), testca.KeyPEM(t, middle.key), nil, "has 2 certificates: without bundle_file_path it must have one"},
		"another's root":        {testca.PEM(middle.cert), testca.KeyPEM(t, middle.key), testca.PEM(other.cert), "does not end in a root of BUNDLE"},
		"garbage for a bundle":  {testca.PEM(middle.cert), testca.KeyPEM(t, middle.key), []byte("x"), "bundle_file_path: BUNDLE: holds no PEM certificate"},
		"expired":               {testca.PEM(expired.cert), testca.KeyPEM(t, expired.key), nil, "expired at"},
		"not a CA":              {testca.PEM(leaf), testca.KeyPEM(t, leafKey), nil, "may not sign certificates"},
		"cut short":             {certificate[:len(certificate)-30], key, nil, "holds no PEM certificate"},
		"second cut short":      {append(testca.PEM(root.cert), certificate[:100]...), key, nil, "what follows certificate 1 is not whole PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := upstream.DiskConfig{CertFile: write(t, dir, "cert.pem", tt.cert), KeyFile: write(t, dir, "key.pem", tt.key)}
			if tt.bundle != nil {
				cfg.BundleFile = write(t, dir, "bundle.pem", tt.bundle)
			}
			err := upstream.NewDisk(cfg).Check()
			want := strings.NewReplacer("CERT:", cfg.CertFile+":", "KEYFILE:", cfg.KeyFile+":", "BUNDLE", cfg.BundleFile).Replace(tt.want)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
	if err := upstream.NewDisk(upstream.DiskConfig{CertFile: filepath.Join(dir, "absent")}).Check(); err == nil || !strings.Contains(err.Error(), "absent: no such file") {
		t.Errorf("%v", err)
	}
}

// FuzzPEM: what an operator's file holds may be anything.
func FuzzPEM(f *testing.F) {
	root := newCorporate(f, "root", nil, -1, day())
	f.Add(append(testca.PEM(root.cert), testca.KeyPEM(f, root.key)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nAAAA\n-----END RSA PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := upstream.ParseCertificates(data)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		key, err := upstream.ParseKey(data)
		if (err == nil) != (key != nil) {
			t.Errorf("%v, %v", key, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
