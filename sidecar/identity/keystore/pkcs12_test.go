package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// A count of iterations is somebody else's order for work, which has a bound: for the hash over the store, and for each part
// that is encrypted.
func TestPKCS12IterationsAreBounded(t *testing.T) {
	ca := testca.New(t, "one.test")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.Sign(t, "spiffe://one.test/a", &key.PublicKey)
	for name, encoder := range map[string]*pkcs12.Encoder{"modern": pkcs12.Modern2023, "legacy": pkcs12.LegacyDES} {
		data, err := encoder.WithIterations(0x10000).Encode(key, cert, nil, "changeit")
		if err != nil {
			t.Fatal(err)
		}
		if c, err := parsePKCS12(data, "changeit"); err != nil || !c.Certificates[0].Equal(cert) {
			t.Errorf("%s: %v", name, err)
		}
		found := 0
		for at := range data {
			if bytes.HasPrefix(data[at:], []byte{2, 3, 1, 0, 0}) {
				found++
				huge := slices.Clone(data)
				copy(huge[at:], []byte{2, 3, 0x7f, 0xff, 0xff})
				if _, err := parsePKCS12(huge, "changeit"); err == nil || !strings.Contains(err.Error(), "8388607 iterations: use at most") {
					t.Errorf("%s, count %d: %v", name, found, err)
				}
			}
		}
		if found != 3 { // the hash, the certificates, the key
			t.Errorf("%s: %d counts", name, found)
		}
	}
}

func FuzzIterations(f *testing.F) {
	for _, name := range []string{"ec.p12", "legacy.p12"} {
		f.Add(read(f, name))
	}
	f.Add([]byte{0x30, 0x0c, 4, 0, 2, 8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := iterations(data, maxDepth); n < 0 {
			t.Fatal(n)
		}
	})
}
