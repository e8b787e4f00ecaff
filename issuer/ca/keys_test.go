package ca_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

func TestMissingKeyFile(t *testing.T) {
	s := newSite(t)
	first := sign(t, s.start())
	if err := os.Remove(s.keyFile()); err != nil {
		t.Fatal(err)
	}
	leaf := sign(t, s.start())
	if string(leaf.AuthorityKeyId) == string(first.AuthorityKeyId) {
		t.Fatal("signed with a key that is gone")
	}
	// What the lost authority signed is still good.
	if s.bundle()[string(first.AuthorityKeyId)] == nil {
		t.Error("the lost authority was dropped from the bundle")
	}
}

func TestCorruptKeyFileIsLeftAlone(t *testing.T) {
	s := newSite(t)
	s.start()
	const garbage = `{"keys":{"x509-CA-A":"AAAA"`
	if err := os.WriteFile(s.keyFile(), []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ca.OpenKeys(s.keyFile())
	if err == nil || !strings.Contains(err.Error(), s.keyFile()) || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("OpenKeys = %v", err)
	}
	if data, err := os.ReadFile(s.keyFile()); err != nil || string(data) != garbage {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

// Whoever tries us with SPIRE's own configuration can go back: its keys are kept.
func TestKeysOfAnotherIssuerAreKept(t *testing.T) {
	theirs := newSite(t)
	theirs.start()
	before, err := os.ReadFile(theirs.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	ours := newSite(t)
	if err := os.MkdirAll(filepath.Dir(ours.keyFile()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ours.keyFile(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	ours.start()
	copies, err := filepath.Glob(ours.keyFile() + ".found-*")
	if err != nil || len(copies) != 1 {
		t.Fatalf("%v, %v: want one copy", copies, err)
	}
	info, err := os.Stat(copies[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if kept, err := os.ReadFile(copies[0]); err != nil || string(kept) != string(before) {
		t.Errorf("%v: the copy is not what was there", err)
	}
	ours.start()
	if again, _ := filepath.Glob(ours.keyFile() + ".found-*"); len(again) != 1 {
		t.Errorf("%v: our own keys were copied", again)
	}
}
