package identity_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Certificate and key are two files. Between their changes they don't fit, and the old ones stay.
func TestWatchSurvivesHalfWrittenPairs(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	cert, key := ca.Leaf(t)
	cfg := f.pair(cert, key)
	cfg.Watch = true
	s := load(t, cfg, identity.Deps{})
	run(t, s)
	first := current(t, s)
	next, nextKey := ca.Leaf(t)
	f.write("cert.pem", testca.PEM(next))
	until(t, "the pair that does not fit", func() bool { return s.Status().ConnectionErr != nil })
	if current(t, s) != first {
		t.Error("the good one was replaced")
	}
	f.write("key.pem", testca.KeyPEM(t, nextKey))
	until(t, "the new pair", func() bool { return current(t, s).Certificate().Leaf.Equal(next) })
	if st := s.Status(); st.ConnectionErr != nil {
		t.Errorf("status %+v", st)
	}
	// The same again is no new version: sessions go on.
	held, before := current(t, s), s.Status().LastUpdate
	f.write("key.pem", testca.KeyPEM(t, nextKey))
	until(t, "the same pair again", func() bool { return s.Status().LastUpdate.After(before) })
	if current(t, s) != held {
		t.Error("the same files made a new version")
	}
}

// Kubernetes swaps a link to the directory that holds all files of a secret.
func TestWatchSurvivesSwappedLinks(t *testing.T) {
	f := newFolder(t)
	ca := testca.New(t, "one.test")
	mount := func(version string) *identity.Config {
		cert, key := ca.Leaf(t)
		must(t, os.Mkdir(f.path(version), 0o700))
		f.write(version+"/tls.crt", testca.PEM(cert))
		f.write(version+"/tls.key", testca.KeyPEM(t, key))
		must(t, os.Symlink(version, f.path("..data_tmp")))
		must(t, os.Rename(f.path("..data_tmp"), f.path("..data")))
		return &identity.Config{Cert: f.path("tls.crt"), Key: f.path("tls.key"), Watch: true}
	}
	cfg := mount("..2026_1")
	for _, name := range []string{"tls.crt", "tls.key"} {
		must(t, os.Symlink(filepath.Join("..data", name), f.path(name)))
	}
	s := load(t, *cfg, identity.Deps{})
	run(t, s)
	for _, version := range []string{"..2026_2", "..2026_3"} {
		before := current(t, s)
		mount(version)
		until(t, version, func() bool { return current(t, s) != before })
		if st := s.Status(); st.ConnectionErr != nil {
			t.Errorf("status %+v", st)
		}
	}
}
