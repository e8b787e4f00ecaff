package x509pop

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// readRoots reads the PEM certificates in all files; each must have one.
func readRoots(paths []string) (*x509.CertPool, error) {
	if len(paths) == 0 {
		return nil, errors.New("one of ca_bundle_path or ca_bundle_paths must be configured")
	}
	roots := x509.NewCertPool()
	var errs []error
	for _, path := range paths {
		if err := addFile(roots, path); err != nil {
			errs = append(errs, fmt.Errorf("ca_bundle_path %s: %w", path, err))
		}
	}
	return roots, errors.Join(errs...)
}

func addFile(roots *x509.CertPool, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	found := false
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("has a PEM block %q: want certificates only", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		roots.AddCert(cert)
		found = true
	}
	if !found {
		return errors.New("has no PEM certificate")
	}
	return nil
}
