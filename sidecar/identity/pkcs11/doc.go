// Package pkcs11 owns private keys that are in a PKCS#11 module: a smart card, an HSM, a TPM. It needs cgo and the build tag
// pkcs11; in other builds there is an Opener that opens nothing. It keeps no certificates.
package pkcs11
