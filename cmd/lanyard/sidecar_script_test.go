package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// writeCerts makes the files of an SVID, and the bundle of its issuer, in dir: cert.pem, key.pem, store.pem (both) and ca.pem.
func writeCerts(t *testing.T, dir string, ca *testca.CA, id string) error {
	cert, key, err := ca.SVID(t, id).Marshal()
	if err != nil {
		return err
	}
	bundle, err := ca.Bundle().Marshal()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key, "store.pem": append(append([]byte{}, cert...), key...), "ca.pem": bundle} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// certs DIR: makes the files of an SVID, spiffe://a/b, in the directory.
func certs(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(writeCerts(t, ts.MkAbs(args[0]), testca.New(t, "a"), "spiffe://a/b"))
	}
}
