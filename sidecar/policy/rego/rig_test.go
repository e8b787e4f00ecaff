package rego

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

var (
	web = spiffeid.RequireFromString("spiffe://one.test/ns/prod/sa/web")
	db  = spiffeid.RequireFromString("spiffe://one.test/ns/prod/sa/db")
)

// write makes a file of a test's own.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, text)
	return path
}

func rewrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tarball makes a bundle of files.
func tarball(t testing.TB, files map[string]string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, "bundle.tar.gz", out.String())
}

// directory makes a bundle of files that are not packed.
func directory(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		rewrite(t, filepath.Join(dir, name), text)
	}
	return dir
}

// loaded returns the engine of the policy at path with the query data.test.allow.
func loaded(t testing.TB, path string) policy.Engine {
	t.Helper()
	e, err := New(policy.Rego{Path: path, Query: "data.test.allow"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// file is loaded for the text of one .rego file.
func file(t testing.TB, text string) policy.Engine {
	t.Helper()
	return loaded(t, write(t, "policy.rego", text))
}

// want fails the test if the answer is another. An empty reason is that of yes, and of the result false.
func want(t *testing.T, e policy.Engine, r policy.Request, allowed bool, reason string) {
	t.Helper()
	got, err := e.Allow(t.Context(), r)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if got != allowed || text != reason {
		t.Errorf("%v, %q; want %v, %q", got, text, allowed, reason)
	}
}

// certificate makes one with names of every kind for key.
func certificate(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(1), 150), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
		Subject:     pkix.Name{CommonName: "web", Organization: []string{"SPIRE"}, OrganizationalUnit: []string{"shop"}},
		DNSNames:    []string{"web.test"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1), net.IPv6loopback},
		URIs:        []*url.URL{web.URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecdsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
