package keystore

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

func parsePKCS12(data []byte, password string) (Contents, error) {
	// Every reload would take as long, and hold up all others.
	if n := iterations(data, maxDepth); n > maxIterations {
		return Contents{}, fmt.Errorf("encrypted with %d iterations: use at most %d", n, maxIterations)
	}
	key, leaf, others, err := pkcs12.DecodeChain(data, password)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return Contents{}, errPassword
	}
	if err != nil {
		return Contents{}, err
	}
	signer, err := usable(key)
	return Contents{Certificates: append([]*x509.Certificate{leaf}, others...), Key: signer}, err
}

// maxDepth is how deep values are looked into; those of a PKCS#12 file that count are not nested half as deep.
const maxDepth = 32

// iterations is the highest count of iterations in DER values, of those that can be seen without the password; what that
// decrypts was written by somebody who has it. A count is the integer after a salt, in MacData (RFC 7292, section 4) as in
// the parameters of all encryptions by password (there, appendix C, and RFC 8018, appendix A).
func iterations(der []byte, depth int) int64 {
	var highest int64
	salt := false // the value before was one
	for len(der) > 0 && depth > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			break // no DER: text, or encrypted
		}
		universal := v.Class == asn1.ClassUniversal
		switch {
		case universal && v.Tag == asn1.TagInteger && salt:
			highest = max(highest, count(v))
		case v.IsCompound, universal && v.Tag == asn1.TagOctetString: // which may hold DER
			highest = max(highest, iterations(v.Bytes, depth-1))
		}
		salt = universal && v.Tag == asn1.TagOctetString
		der = rest
	}
	return highest
}

// count is an INTEGER; the highest there is if it is higher.
func count(v asn1.RawValue) int64 {
	var n int64
	if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil {
		return 1<<63 - 1
	}
	return n
}
