package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzParseCSR: whatever is accepted has a key that we sign for, and whose
// holder signed.
func FuzzParseCSR(f *testing.F) {
	for _, kt := range []KeyType{KeyECP256, KeyECP384, KeyRSA2048} {
		key, err := kt.generate()
		if err != nil {
			f.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a.test"},
		}, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(der[:len(der)-1])
		f.Add(append(slices.Clone(der), 0))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		if err != nil {
			if csr != nil {
				t.Error("a request and an error")
			}
			return
		}
		if err := checkPublicKey(csr.PublicKey); err != nil {
			t.Error(err)
		}
		if err := csr.CheckSignature(); err != nil {
			t.Error(err)
		}
		if _, _, err := encodeKey(csr.PublicKey); err != nil {
			t.Error(err)
		}
	})
}

// FuzzKeyFile: a key file is read whole or refused, without repeating any of it,
// and what is read can be written and read again.
func FuzzKeyFile(f *testing.F) {
	keys, err := NewMemoryKeys().Generate(f.Context(), "x509-CA-A", KeyECP256)
	if err != nil {
		f.Fatal(err)
	}
	good, err := marshalKeys(map[string]crypto.Signer{"x509-CA-A": keys})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":{"a":"AAAA"}}`))
	f.Add([]byte(`{"keys":{}} {}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err != nil {
			if strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error repeats the file: %v", err)
			}
			return
		}
		again, err := marshalKeys(keys)
		if err != nil {
			t.Fatal(err)
		}
		read, err := parseKeys(again)
		if err != nil {
			t.Fatal(err)
		}
		same := func(a, b crypto.Signer) bool { return samePublicKey(a.Public(), b.Public()) }
		if !maps.EqualFunc(keys, read, same) {
			t.Error("other keys were read than written")
		}
	})
}
