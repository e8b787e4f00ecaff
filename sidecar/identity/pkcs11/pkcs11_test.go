//go:build pkcs11 && cgo

package pkcs11_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ThalesGroup/crypto11"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/pkcs11"
)

const label, pin = "lanyard", "4711"

// token makes a new SoftHSM token and returns its module.
func token(t *testing.T) string {
	t.Helper()
	var module string
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			module = path
		}
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil || module == "" {
		t.Skip("softhsm2 is not installed")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	if out, err := exec.Command(util, "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "0815").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return module
}

// generate makes key pairs in the token, and returns certificates of them: ECDSA and RSA.
func generate(t *testing.T, module string, ca *testca.CA) []*x509.Certificate {
	t.Helper()
	m, err := crypto11.Configure(&crypto11.Config{Path: module, TokenLabel: label, Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cert, key := ca.Leaf(t) // for its curve
	ec, err := m.GenerateECDSAKeyPairWithLabel([]byte{1}, []byte("ec"), key.Curve)
	if err != nil {
		t.Fatal(err)
	}
	rsa, err := m.GenerateRSAKeyPairWithLabel([]byte{2}, []byte("rsa"), 2048)
	if err != nil {
		t.Fatal(err)
	}
	host := testca.Host("localhost")
	return []*x509.Certificate{ca.Sign(t, "", ec.Public(), host), ca.Sign(t, "", rsa.Public(), host), cert}
}

func TestHandshakesWithAKeyInSoftHSM(t *testing.T) {
	module := token(t)
	ca := testca.New(t, "one.test")
	certs := generate(t, module, ca)
	path := filepath.Join(t.TempDir(), "cert.pem")
	load := func(p identity.PKCS11) (identity.Source, error) {
		s, err := identity.New(identity.Config{Cert: path, PKCS11: p}, identity.Deps{PKCS11: pkcs11.Opener()})
		if err != nil {
			return nil, err
		}
		return s, s.Load(t.Context())
	}
	good := identity.PKCS11{Module: module, TokenLabel: label, PIN: pin}
	for _, cert := range certs[:2] {
		testca.Write(t, path, testca.PEM(cert))
		s, err := load(good)
		if err != nil {
			t.Fatal(err)
		}
		handshake(t, s, ca)
		first, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		// The key stays open, and another certificate's is refused.
		testca.Write(t, path, testca.PEM(ca.Sign(t, "", cert.PublicKey, testca.Host("localhost"))))
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		second, err := s.Current()
		if err != nil || second.Certificate().PrivateKey.(crypto.Signer) != first.Certificate().PrivateKey.(crypto.Signer) {
			t.Errorf("%v; the key was opened again", err)
		}
		handshake(t, s, ca)
		testca.Write(t, path, testca.PEM(certs[2]))
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "another public key") {
			t.Error(err)
		}
		handshake(t, s, ca)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil { // closes the module
			t.Error(err)
		}
	}
	for want, p := range map[string]identity.PKCS11{
		"none of its 2 key pairs is the certificate's": good,
		"pkcs11_module /none.so: ":                     {Module: "/none.so", TokenLabel: label, PIN: pin},
		`token "other": `:                              {Module: module, TokenLabel: "other", PIN: pin},
		"CKR_PIN_INCORRECT":                            {Module: module, TokenLabel: label, PIN: "666666"},
	} {
		if _, err := load(p); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), p.PIN) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// handshake has a client of ca's look at what s shows.
func handshake(t *testing.T, s identity.Source, ca *testca.CA) {
	t.Helper()
	id, err := s.Current()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	a, b := net.Pipe()
	served := make(chan error, 1)
	go func() {
		defer b.Close()
		served <- tls.Server(b, &tls.Config{Certificates: []tls.Certificate{*id.Certificate()}}).HandshakeContext(t.Context())
	}()
	defer a.Close()
	if err := tls.Client(a, &tls.Config{RootCAs: roots, ServerName: "localhost"}).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	go a.Read(make([]byte, 1024)) // the session ticket
	if err := <-served; err != nil {
		t.Error(err)
	}
}
