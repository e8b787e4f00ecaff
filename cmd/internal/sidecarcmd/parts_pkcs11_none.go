//go:build !pkcs11

package sidecarcmd

import (
	"crypto"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

// pkcs11Key gives nil: PKCS#11 needs cgo, and the build tag pkcs11.
func pkcs11Key() func(identity.PKCS11, crypto.PublicKey) (crypto.Signer, error) { return nil }
