package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// errEncrypted tells how to make a key readable that is encrypted inside its PEM block.
var errEncrypted = errors.New(`the private key is encrypted: write it without a password, as "openssl pkey -in FILE -out NEWFILE" does, or use PKCS#12`)

// ParsePEM reads certificates and at most one private key, in any order. What is neither is passed over.
func ParsePEM(data []byte) (Contents, error) {
	return parsePEM(data, func(string) bool { return true })
}

// ParseCertificates is [ParsePEM] that passes over private keys.
func ParseCertificates(data []byte) (Contents, error) {
	return parsePEM(data, func(kind string) bool { return !isKey(kind) })
}

// ParseKey is [ParsePEM] that passes over certificates, but not over there being no private key.
func ParseKey(data []byte) (crypto.Signer, error) {
	c, err := parsePEM(data, isKey)
	if err == nil && c.Key == nil {
		err = errors.New("holds no PEM private key")
	}
	return c.Key, err
}

func isKey(kind string) bool { return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY") }

// parsePEM reads the blocks of the wanted types. One that is damaged, of whatever type, is an error: package pem passes over
// it, and of a list that is only half written the first half would be taken for all.
func parsePEM(data []byte, wanted func(kind string) bool) (Contents, error) {
	var c Contents
	blocks, read := begun(data), 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		read++
		if !wanted(block.Type) {
			continue
		}
		if err := c.add(block); err != nil {
			return Contents{}, err
		}
	}
	switch damaged := blocks - read; {
	case damaged == 1:
		return Contents{}, fmt.Errorf("1 of %d PEM blocks is damaged, or not written to its end: write the file again", blocks)
	case damaged > 1:
		return Contents{}, fmt.Errorf("%d of %d PEM blocks are damaged: write the file again", damaged, blocks)
	}
	return c, nil
}

// begun is how many PEM blocks have a first line in data.
func begun(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte("-----BEGIN")) {
			n++
		}
	}
	return n
}

func (c *Contents) add(block *pem.Block) error {
	switch {
	case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", len(c.Certificates)+1, err)
		}
		c.Certificates = append(c.Certificates, cert)
	case block.Type == "PKCS7":
		return errors.New(`a PKCS7 block: write its certificates one by one, as "openssl pkcs7 -print_certs -in FILE -out NEWFILE" does`)
	case isKey(block.Type):
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return errEncrypted
		}
		if c.Key != nil {
			return errors.New("there are two private keys: keep one")
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(block.Type), err)
		}
		c.Key = key
	}
	return nil
}

// parseKey reads a key as PKCS #8 (RFC 5958), PKCS #1 (RFC 8017) or SEC 1 (RFC 5915): block types are not to be relied on.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return usable(key)
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("neither PKCS #8, PKCS #1 nor SEC 1")
}
