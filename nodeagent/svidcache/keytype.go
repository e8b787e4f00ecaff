package svidcache

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
)

// keyTypes are the accepted values of [Config].KeyType, SPIRE's names.
func keyTypes() []string { return []string{"ec-p256", "ec-p384", "rsa-2048", "rsa-4096"} }

// CheckKeyType reports whether s is a key type; "" is the default, ec-p256.
func CheckKeyType(s string) error {
	if s == "" || slices.Contains(keyTypes(), s) {
		return nil
	}
	return fmt.Errorf("workload key type %q: want one of %s", s, strings.Join(keyTypes(), ", "))
}

func newKey(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "", "ec-p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ec-p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa-2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, CheckKeyType(keyType)
	}
}
