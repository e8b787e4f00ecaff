package identity_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// folder is one of certificate files.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) write(name string, parts ...[]byte) string {
	f.t.Helper()
	var data []byte
	for _, p := range parts {
		data = append(data, p...)
	}
	testca.Write(f.t, f.path(name), data)
	return f.path(name)
}

// pair writes a certificate and its key, and returns a configuration of them.
func (f folder) pair(cert *x509.Certificate, key crypto.Signer) identity.Config {
	f.t.Helper()
	return identity.Config{Cert: f.write("cert.pem", testca.PEM(cert)), Key: f.write("key.pem", testca.KeyPEM(f.t, key))}
}

// load returns a Source of c that was loaded.
func load(t *testing.T, c identity.Config, d identity.Deps) identity.Source {
	t.Helper()
	s, err := identity.New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs s until the test ends.
func run(t *testing.T, s identity.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func current(t *testing.T, s identity.Source) *identity.Identity {
	t.Helper()
	i, err := s.Current()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// until polls until ok holds: a file system and a Workload API tell nobody else when they are done.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never saw %s", what)
		}
	}
}
