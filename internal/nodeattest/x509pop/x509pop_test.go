package x509pop_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest/x509pop"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// certificate returns one that signed itself, and its key.
func certificate(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return map[string]crypto.Signer{"P-256": p256, "P-521": p521, "RSA": rsaKey}
}

func TestProofRoundTrip(t *testing.T) {
	all := keys(t)
	for name, key := range all {
		cert := certificate(t, key)
		payload, err := x509pop.NewPayload([][]byte{cert.Raw})
		must(t, err)
		chain, err := x509pop.ParsePayload(payload, x509pop.DefaultLimits())
		must(t, err)
		challenge, err := x509pop.NewChallenge(chain.Leaf)
		must(t, err)
		message, err := challenge.Message()
		must(t, err)
		response, err := x509pop.Respond(key, message)
		must(t, err)
		if err := challenge.Verify(response); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		later, err := x509pop.NewChallenge(chain.Leaf)
		must(t, err)
		if later.Verify(response) == nil {
			t.Errorf("%s: a response is good for another challenge", name)
		}
		for other, key := range all {
			if wrong, err := x509pop.Respond(key, message); other != name && err == nil && challenge.Verify(wrong) == nil {
				t.Errorf("%s proved %s", other, name)
			}
		}
	}
}

// The messages have SPIRE's members, both of them always, and its nonces.
func TestMessagesAreSPIREs(t *testing.T) {
	for name, key := range keys(t) {
		challenge, err := x509pop.NewChallenge(certificate(t, key))
		must(t, err)
		message, err := challenge.Message()
		must(t, err)
		response, err := x509pop.Respond(key, message)
		must(t, err)
		mine, other, members := "ecdsa_signature", "rsa_signature", []string{"nonce", "r", "s"}
		if name == "RSA" {
			mine, other, members = other, mine, []string{"nonce", "signature"}
		}
		for what, text := range map[string][]byte{"challenge": message, "response": response} {
			var m map[string]map[string][]byte
			must(t, json.Unmarshal(text, &m))
			if len(m) != 2 || m[other] != nil || len(m[mine]["nonce"]) != 32 || !bytes.Contains(text, []byte(`"`+other+`":null`)) {
				t.Errorf("%s %s: %s", name, what, text)
			}
			if what == "response" {
				for _, member := range members {
					if len(m[mine][member]) == 0 {
						t.Errorf("%s response has no %s: %s", name, member, text)
					}
				}
			}
		}
	}
}

func TestLongNumbersAreNoSignature(t *testing.T) {
	challenge, err := x509pop.NewChallenge(certificate(t, keys(t)["P-256"]))
	must(t, err)
	response, err := json.Marshal(map[string]map[string][]byte{"ecdsa_signature": {"nonce": make([]byte, 32), "r": bytes.Repeat([]byte{1}, 5000), "s": {1}}})
	must(t, err)
	if err := challenge.Verify(response); err == nil || !strings.Contains(err.Error(), "verify failed") {
		t.Error(err)
	}
}

// FuzzParsePayload holds that no more is taken than the limits allow, and that
// what is taken is written again as it was.
func FuzzParsePayload(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(f, err)
	cert := certificate(f, key).Raw
	for n := 1; n <= 3; n++ {
		payload, err := x509pop.NewPayload(append([][]byte{cert, cert}, cert)[:n])
		must(f, err)
		f.Add(payload)
	}
	f.Add([]byte(`{"certificates":[]}`))
	f.Add([]byte(`{"certificates":[null]}`))
	limits := x509pop.Limits{Intermediates: 1, RSABits: 2048}
	f.Fuzz(func(t *testing.T, payload []byte) {
		chain, err := x509pop.ParsePayload(payload, limits)
		if err != nil {
			return
		}
		ders := [][]byte{chain.Leaf.Raw}
		for _, c := range chain.Intermediates {
			ders = append(ders, c.Raw)
		}
		if len(ders) > limits.Intermediates+1 {
			t.Fatalf("took %d certificates", len(ders))
		}
		again, err := x509pop.NewPayload(ders)
		must(t, err)
		same, err := x509pop.ParsePayload(again, limits)
		if err != nil || !same.Leaf.Equal(chain.Leaf) {
			t.Fatalf("written again: %v", err)
		}
	})
}

// FuzzResponse holds that what a stranger makes up never passes, and that an
// honest node answers any challenge that it can read in a way that passes.
func FuzzResponse(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(f, err)
	cert := certificate(f, key)
	challenge, err := x509pop.NewChallenge(cert)
	must(f, err)
	other, err := x509pop.NewChallenge(cert)
	must(f, err)
	message, err := challenge.Message()
	must(f, err)
	response, err := x509pop.Respond(key, message)
	must(f, err)
	f.Add(message, response)
	f.Add([]byte(`{"rsa_signature":{"nonce":""}}`), []byte(`{"ecdsa_signature":{"nonce":"","r":"","s":""}}`))
	f.Add([]byte(`null`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, asked, answered []byte) {
		if other.Verify(answered) == nil {
			t.Fatalf("%q passes", answered)
		}
		if answer, err := x509pop.Respond(key, asked); err == nil && bytes.Equal(asked, message) {
			must(t, challenge.Verify(answer))
		}
	})
}
