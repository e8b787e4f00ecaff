package ca

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

// KeyType is a kind of private key, by the name that SPIRE's configuration has
// for it.
type KeyType string

// The kinds of keys that sign. The zero value stands for [KeyECP256].
const (
	KeyECP256  KeyType = "ec-p256"
	KeyECP384  KeyType = "ec-p384"
	KeyRSA2048 KeyType = "rsa-2048"
	KeyRSA4096 KeyType = "rsa-4096"
)

// KeyTypes are all of them, in the order to name them to people.
func KeyTypes() []KeyType {
	return []KeyType{KeyECP256, KeyECP384, KeyRSA2048, KeyRSA4096}
}

// ParseKeyType reads the name of a key type.
func ParseKeyType(s string) (KeyType, error) {
	if t := KeyType(s); slices.Contains(KeyTypes(), t) {
		return t, nil
	}
	var names []string
	for _, t := range KeyTypes() {
		names = append(names, fmt.Sprintf("%q", t))
	}
	return "", fmt.Errorf("key type %q is unknown: want %s", s, strings.Join(names, ", "))
}

// generate makes a new key of type t.
func (t KeyType) generate() (crypto.Signer, error) {
	switch t {
	case "", KeyECP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case KeyECP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case KeyRSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case KeyRSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	default:
		_, err := ParseKeyType(string(t))
		return nil, err
	}
}
