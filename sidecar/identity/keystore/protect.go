package keystore

import (
	"crypto"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// maxIterations is the highest count that the JDK takes (jdk.jceks.iterationCount): about a second of work.
const maxIterations = 5_000_000

// Sun's own key protection: that of JKS, and PBEWithMD5AndTripleDES of JCEKS.
const (
	oidJKS  = "1.3.6.1.4.1.42.2.17.1.1"
	oidJCE  = "1.3.6.1.4.1.42.2.19.1"
	jksSalt = sha1.Size // in bytes
)

// recoverKey decrypts a private key of a Java keystore.
func recoverKey(protected []byte, password string) (crypto.Signer, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if rest, err := asn1.Unmarshal(protected, &info); err != nil || len(rest) > 0 {
		return nil, errors.New("not an EncryptedPrivateKeyInfo")
	}
	var der []byte
	var err error
	switch oid := info.Algorithm.Algorithm.String(); oid {
	case oidJKS:
		der, err = unprotectJKS(info.Data, password)
	case oidJCE:
		der, err = unprotectJCE(info.Algorithm.Parameters.FullBytes, info.Data, password)
	default:
		return nil, fmt.Errorf("encrypted with unknown algorithm %s", oid)
	}
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errKeyPassword
	}
	return usable(key)
}

var errKeyPassword = errors.New("its password is not the store's: make them the same, with keytool -keypasswd")

// unprotectJKS undoes JKS's protection: salt, key XOR a stream of SHA-1 hashes, and a hash of password and key.
func unprotectJKS(data []byte, password string) ([]byte, error) {
	if len(data) <= jksSalt+sha1.Size {
		return nil, errShort
	}
	pass := wide(password)
	digest, want := data[:jksSalt], data[len(data)-sha1.Size:]
	key := append([]byte(nil), data[jksSalt:len(data)-sha1.Size]...)
	for rest := key; len(rest) > 0; {
		digest = hash1(pass, digest)
		rest = rest[subtle.XORBytes(rest, rest, digest):]
	}
	if subtle.ConstantTimeCompare(hash1(pass, key), want) != 1 {
		return nil, errKeyPassword
	}
	return key, nil
}

func hash1(parts ...[]byte) []byte {
	h := sha1.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// unprotectJCE undoes PBEWithMD5AndTripleDES, an extension of PKCS #5's PBES1 to two hashes: each half of the salt is
// hashed with the password again and again, and both results are key and initialization vector.
func unprotectJCE(params, data []byte, password string) ([]byte, error) {
	var p struct {
		Salt       []byte
		Iterations int
	}
	if rest, err := asn1.Unmarshal(params, &p); err != nil || len(rest) > 0 || len(p.Salt) != 8 || p.Iterations < 1 {
		return nil, errors.New("the parameters of its encryption are not PBEWithMD5AndTripleDES's")
	}
	if p.Iterations > maxIterations {
		return nil, fmt.Errorf("encrypted with %d iterations: use at most %d", p.Iterations, maxIterations)
	}
	for _, r := range password {
		if r < ' ' || r > '~' {
			return nil, errors.New("its password is not ASCII, which JCEKS needs")
		}
	}
	key := deriveJCE(p.Salt, []byte(password), p.Iterations)
	block, err := des.NewTripleDESCipher(key[:24])
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data)%block.BlockSize() != 0 {
		return nil, errKeyPassword
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, key[24:]).CryptBlocks(plain, data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > block.BlockSize() {
		return nil, errKeyPassword
	}
	return plain[:len(plain)-pad], nil
}

// deriveJCE returns 24 bytes of key and 8 of initialization vector.
func deriveJCE(salt, password []byte, iterations int) []byte {
	halves := [2][]byte{append([]byte(nil), salt[:4]...), salt[4:]}
	if string(halves[0]) == string(halves[1]) {
		slices.Reverse(halves[0]) // equal halves would make equal hashes
	}
	var out []byte
	for _, half := range halves {
		digest := half
		for range iterations {
			sum := md5.Sum(append(digest[:len(digest):len(digest)], password...))
			digest = sum[:]
		}
		out = append(out, digest...)
	}
	return out
}
