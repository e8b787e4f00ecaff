// Package keystore owns the file formats that a certificate and its private key come in: PEM, PKCS#12, JCEKS and JKS, DER.
// It verifies no certificate and knows no identities.
package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSize is the most that is read of a file, in bytes.
const maxSize = 50 << 20

// Contents are what a file holds.
type Contents struct {
	// Certificates are in the order of the file; of a Java or PKCS#12 keystore, the private key's own chain.
	Certificates []*x509.Certificate
	// Key is an *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey; nil if there is none.
	Key crypto.Signer
}

// Read returns a file's bytes. The error doesn't name the file.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxSize {
		return nil, errTooLarge
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(data) > maxSize {
		return nil, errTooLarge // a pipe, or it grew
	}
	return data, nil
}

var errTooLarge = fmt.Errorf("is larger than %d MB: it cannot be a keystore or a list of certificates", maxSize>>20)

func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// Format is one of the formats of files.
type Format string

// The formats.
const (
	PEM    Format = "PEM"
	PKCS12 Format = "PKCS#12"
	JCEKS  Format = "JCEKS" // JKS too: their container is the same
	DER    Format = "DER"
)

// Detect tells a file's format by its extension, else by its first four bytes, as ghostunnel does.
func Detect(path string, data []byte) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".pem", ".crt", ".p7b", ".p7c":
		return PEM, nil
	case ".p12", ".pfx":
		return PKCS12, nil
	case ".jceks", ".jks":
		return JCEKS, nil
	case ".der":
		return DER, nil
	}
	if len(data) >= 4 {
		switch magic := binary.BigEndian.Uint32(data); {
		case magic == magicJCEKS, magic == magicJKS:
			return JCEKS, nil
		case magic == 0x2d2d2d2d, magic == 0x434f4e4e: // "----", and "CONN" as openssl s_client begins
			return PEM, nil
		case magic>>8 == 0x308203: // a SEQUENCE of less than 1 KiB
			return DER, nil
		case magic>>16 == 0x3082:
			return PKCS12, nil
		}
	}
	return "", errors.New("is of no known format: use PEM, PKCS#12 (.p12) or JCEKS (.jceks)")
}

// Parse reads the contents of the file at path, which are data. password opens PKCS#12 and JCEKS.
func Parse(path string, data []byte, password string) (Contents, error) {
	format, err := Detect(path, data)
	if err != nil {
		return Contents{}, err
	}
	var c Contents
	switch format {
	case PEM:
		c, err = ParsePEM(data)
	case PKCS12:
		c, err = parsePKCS12(data, password)
	case JCEKS:
		c, err = parseJCEKS(data, password)
	case DER:
		// ghostunnel's guess takes PKCS#12 of less than 1 KiB for this, too.
		if c.Certificates, err = x509.ParseCertificates(data); err != nil {
			if small, smallErr := parsePKCS12(data, password); smallErr == nil || errors.Is(smallErr, errPassword) {
				c, err = small, smallErr
			}
		}
	}
	if err != nil {
		return Contents{}, fmt.Errorf("as %s: %w", format, err)
	}
	return c, nil
}

var errPassword = errors.New("the password is wrong, or the file is damaged")

// usable returns a private key of a kind that TLS certificates have.
func usable(key any) (crypto.Signer, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	default:
		return nil, fmt.Errorf("a private key of type %T: use RSA, ECDSA or Ed25519", key)
	}
}
