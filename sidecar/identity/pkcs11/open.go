//go:build pkcs11 && cgo

package pkcs11

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// Opener returns the function that opens the private key of a public key: RSA or ECDSA, in the token with the label and PIN
// given. What it returns is closed by its Close.
func Opener() func(identity.PKCS11, crypto.PublicKey) (crypto.Signer, error) { return open }

// key is a private key and the module that it is in.
type key struct {
	crypto.Signer
	module *crypto11.Context
}

// Close implements io.Closer.
func (k key) Close() error { return k.module.Close() }

func open(c identity.PKCS11, pub crypto.PublicKey) (crypto.Signer, error) {
	module, err := crypto11.Configure(&crypto11.Config{Path: c.Module, TokenLabel: c.TokenLabel, Pin: c.PIN})
	if err != nil {
		return nil, fmt.Errorf("token %q: %w", c.TokenLabel, err)
	}
	found, err := find(module, pub)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("token %q: %w", c.TokenLabel, err), module.Close())
	}
	return key{found, module}, nil
}

func find(module *crypto11.Context, pub crypto.PublicKey) (crypto.Signer, error) {
	all, err := module.FindAllKeyPairs()
	if err != nil {
		return nil, err
	}
	for _, candidate := range all {
		if p, ok := candidate.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && p.Equal(pub) {
			return candidate, nil
		}
	}
	return nil, fmt.Errorf("none of its %d key pairs is the certificate's: put that there, or name its certificate", len(all))
}
