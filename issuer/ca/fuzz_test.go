package ca

import (
	"crypto"
	"encoding/json"
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
			if told := repeated(err, data); told != "" {
				t.Errorf("the error repeats %q of the file: %v", told, err)
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

// repeated is a value of the file that err repeats, but for one that is in an ID as well: IDs are no secret.
func repeated(err error, data []byte) string {
	var file struct{ Keys map[string]string }
	if json.Unmarshal(data, &file) != nil {
		return ""
	}
	for id, value := range file.Keys {
		if len(value) >= 4 && strings.Contains(strings.ReplaceAll(err.Error(), id, ""), value) {
			return value
		}
	}
	return ""
}
