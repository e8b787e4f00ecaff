package ca

import (
	"crypto"
	"maps"
	"strings"
	"testing"
)

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
