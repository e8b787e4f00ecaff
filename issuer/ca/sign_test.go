package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestLeafProfile(t *testing.T) {
	s := newSite(t)
	a := s.start()
	key := newKey(t)
	id := spiffeid.RequireFromString("spiffe://lanyard.test/web")
	chain, err := a.SignX509SVID(t.Context(), ca.Params{
		ID: id, PublicKey: key.Public(), DNSNames: []string{"web.example", "www.example"}, TTL: 10 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 1 {
		t.Fatalf("chain has %d certificates: the root is in the bundle", len(chain))
	}
	leaf := chain[0]
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(leaf.RawSubjectPublicKeyInfo, &spki); err != nil {
		t.Fatal(err)
	}
	ski := sha1.Sum(spki.Bits.Bytes)
	var root *x509.Certificate
	for _, cert := range s.bundle() {
		root = cert
	}
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"subject", leaf.Subject.String(), "CN=web.example,O=SPIRE,C=US"},
		{"URI SANs", leaf.URIs[0].String(), id.String()},
		{"number of URI SANs", len(leaf.URIs), 1},
		{"DNS SANs", leaf.DNSNames, []string{"web.example", "www.example"}},
		{"not before", leaf.NotBefore, epoch.Add(-10 * time.Second)},
		{"not after", leaf.NotAfter, epoch.Add(10 * time.Minute)},
		{"key usage", leaf.KeyUsage, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement},
		{"extended key usage", leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
		{"CA", leaf.IsCA, false},
		{"basic constraints", leaf.BasicConstraintsValid, true},
		{"subject key id", leaf.SubjectKeyId, ski[:]},
		{"authority key id", leaf.AuthorityKeyId, root.SubjectKeyId},
		{"serial is positive", leaf.SerialNumber.Sign(), 1},
		{"key", key.PublicKey.Equal(leaf.PublicKey), true},

		{"root: organization", root.Subject.Organization, []string{"SPIFFE"}},
		{"root: serial number in subject", root.Subject.SerialNumber, root.SerialNumber.String()},
		{"root: URI SAN", root.URIs[0].String(), "spiffe://lanyard.test"},
		{"root: key usage", root.KeyUsage, x509.KeyUsageCertSign | x509.KeyUsageCRLSign},
		{"root: extended key usage", len(root.ExtKeyUsage), 0},
		{"root: CA", root.IsCA, true},
		{"root: path length", root.MaxPathLen, -1},
		{"root: not after", root.NotAfter, epoch.Add(24 * time.Hour)},
	} {
		if diff := cmp.Diff(check.want, check.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", check.what, diff)
		}
	}
	bundle := x509bundle.FromX509Authorities(td, []*x509.Certificate{root})
	if got, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(epoch)); err != nil || got != id {
		t.Errorf("go-spiffe verifies %v, %v", got, err)
	}
}

func TestSignRefuses(t *testing.T) {
	a := newSite(t).start()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := newKey(t).Public()
	for _, tt := range []struct {
		name, id string
		key      crypto.PublicKey
	}{
		{"foreign trust domain", "spiffe://other.test/web", good},
		{"no path", "spiffe://lanyard.test", good},
		{"the issuer itself", "spiffe://lanyard.test/spire/server", good},
		{"no key", "spiffe://lanyard.test/web", nil},
		{"P-224", "spiffe://lanyard.test/web", p224.Public()},
		{"a private key", "spiffe://lanyard.test/web", newKey(t)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.SignX509SVID(t.Context(), ca.Params{ID: spiffeid.RequireFromString(tt.id), PublicKey: tt.key})
			if !errors.Is(err, ca.ErrParams) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestSignBeforeLoad(t *testing.T) {
	a := newSite(t).open()
	if _, err := a.SVID(); !errors.Is(err, ca.ErrNotReady) {
		t.Errorf("SVID: %v", err)
	}
	_, err := a.SignAgentSVID(t.Context(), spiffeid.RequireFromString("spiffe://lanyard.test/spire/agent/x"), newKey(t).Public())
	if !errors.Is(err, ca.ErrNotReady) {
		t.Errorf("SignAgentSVID: %v", err)
	}
}

func TestKeyFileIsPrivate(t *testing.T) {
	s := newSite(t)
	s.start()
	for path, want := range map[string]fs.FileMode{s.keyFile(): 0o600, filepath.Dir(s.keyFile()): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", path, got, want)
		}
	}
	// What an issuer that was killed as it wrote the keys has left of them.
	left := filepath.Join(filepath.Dir(s.keyFile()), ".keys.json.1.tmp")
	if err := os.WriteFile(left, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of the keys is left: %v", err)
	}
	if err := os.Chmod(s.keyFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.OpenKeys(s.keyFile()); err == nil {
		t.Error("OpenKeys took a key file that everyone can read")
	}
}

func TestParseCSR(t *testing.T) {
	key := newKey(t)
	good := newCSR(t, key)
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		der  []byte
		want error
	}{
		{"good", good, nil},
		{"empty", nil, ca.ErrCSRMalformed},
		{"cut", good[:len(good)-4], ca.ErrCSRMalformed},
		{"trailing bytes", append(bytes.Clone(good), 0), ca.ErrCSRMalformed},
		{"too large", make([]byte, 16<<10+1), ca.ErrCSRMalformed},
		{"signature of another", bad, ca.ErrCSRSignature},
		{"RSA 1024", newCSR(t, small), ca.ErrCSRMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ca.ParseCSR(tt.der); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
		})
	}
}

func newCSR(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// FuzzParseCSR holds that what is accepted proves possession of a key that the
// CA is willing to sign for.
func FuzzParseCSR(f *testing.F) {
	f.Add(newCSR(f, newKey(f)))
	f.Add([]byte{})
	f.Add([]byte("0\x82\xff\xff"))
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ca.ParseCSR(der)
		if err != nil {
			if !errors.Is(err, ca.ErrCSRMalformed) && !errors.Is(err, ca.ErrCSRSignature) {
				t.Fatalf("error of neither kind: %v", err)
			}
			return
		}
		if err := csr.CheckSignature(); err != nil {
			t.Fatal(err)
		}
		if _, err := x509.MarshalPKIXPublicKey(csr.PublicKey); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzOpenKeys holds that no content of the key file is overwritten by opening
// it, whether it is taken or not.
func FuzzOpenKeys(f *testing.F) {
	f.Add([]byte(`{"keys":{}}`))
	f.Add([]byte(`{"keys":{"x509-CA-A":"AAAA"}}`))
	f.Add([]byte(`{}{}`))
	f.Add([]byte(`null`))
	path := filepath.Join(f.TempDir(), "keys", "keys.json")
	if _, err := ca.OpenKeys(path); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := ca.OpenKeys(path)
		if err != nil {
			return
		}
		if _, err := keys.Signer(t.Context(), "no such id \x00"); !errors.Is(err, ca.ErrNoKey) {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, data) {
			t.Fatalf("file changed: %q, %v", after, err)
		}
	})
}
