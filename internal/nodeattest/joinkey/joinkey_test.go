package joinkey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func attempt(connection string) joinkey.Attempt {
	return joinkey.Attempt{TrustDomain: td, CSRKeyHash: sha256.Sum256([]byte("csr")), Exporter: func(label string, context []byte, n int) ([]byte, error) {
		sum := sha256.Sum256([]byte(connection + label + string(context)))
		return sum[:n], nil
	}}
}

func TestProofRoundTrip(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		must(t, err)
		message, err := joinkey.NewClaim(key.Public(), "a-token")
		must(t, err)
		claim, err := joinkey.ParseClaim(message)
		must(t, err)
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		must(t, err)
		if claim.Token != "a-token" || claim.KeyHash != sha256.Sum256(der) {
			t.Errorf("claim: %+v", claim)
		}
		challenge, err := joinkey.NewChallenge()
		must(t, err)
		response, err := joinkey.Respond(key, message, challenge, attempt("one"))
		must(t, err)
		must(t, claim.Verify(challenge, response, attempt("one")))
		id, err := joinkey.AgentID(td, "", claim.KeyHash)
		must(t, err)
		if !nodeattest.IsAgentID(td, id) || strings.Contains(id.String(), "a-token") {
			t.Error(id)
		}
	}
}

// The proof is about all that the attempt is about.
func TestProofIsGoodForOneAttemptAlone(t *testing.T) {
	key, err := joinkey.GenerateKey()
	must(t, err)
	message, err := joinkey.NewClaim(key.Public(), "")
	must(t, err)
	withToken, err := joinkey.NewClaim(key.Public(), "stolen")
	must(t, err)
	challenge, err := joinkey.NewChallenge()
	must(t, err)
	another, err := joinkey.NewChallenge()
	must(t, err)
	if bytes.Equal(challenge, another) {
		t.Fatal("two challenges are the same")
	}
	response, err := joinkey.Respond(key, message, challenge, attempt("one"))
	must(t, err)
	otherDomain, otherCSR := attempt("one"), attempt("one")
	otherDomain.TrustDomain = spiffeid.RequireTrustDomainFromString("other.test")
	otherCSR.CSRKeyHash[0]++
	for name, test := range map[string]struct {
		claim, challenge []byte
		about            joinkey.Attempt
	}{
		"another nonce":        {message, another, attempt("one")},
		"another connection":   {message, challenge, attempt("two")},
		"another trust domain": {message, challenge, otherDomain},
		"another SVID key":     {message, challenge, otherCSR},
		"another claim":        {withToken, challenge, attempt("one")},
	} {
		claim, err := joinkey.ParseClaim(test.claim)
		must(t, err)
		if err := claim.Verify(test.challenge, response, test.about); !errors.Is(err, joinkey.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysThatAreNoNodeKeys(t *testing.T) {
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	for _, pub := range []any{long.Public(), p521.Public()} {
		if _, err := joinkey.NewClaim(pub, ""); err == nil {
			t.Errorf("claimed %T", pub)
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		must(t, err)
		message, err := json.Marshal(map[string][]byte{"public_key": der})
		must(t, err)
		if _, err := joinkey.ParseClaim(message); err == nil || !strings.Contains(err.Error(), "P-256 or P-384") {
			t.Errorf("parsed %T: %v", pub, err)
		}
	}
}

// FuzzParseClaim holds that what the issuer accepts has one encoding of its key,
// so that one key is one node, and that errors repeat no token.
func FuzzParseClaim(f *testing.F) {
	key, err := joinkey.GenerateKey()
	must(f, err)
	for _, token := range []string{"", "3c6b5f1e-5d2f-4a53-8a7f-2a1f4f6f0d11"} {
		message, err := joinkey.NewClaim(key.Public(), token)
		must(f, err)
		f.Add(message)
	}
	f.Add([]byte(`{"public_key":"","token":"a/b"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, message []byte) {
		claim, err := joinkey.ParseClaim(message)
		if err != nil {
			return
		}
		var sent struct {
			PublicKey []byte `json:"public_key"`
		}
		must(t, json.Unmarshal(message, &sent))
		pub, err := x509.ParsePKIXPublicKey(sent.PublicKey)
		must(t, err)
		again, err := joinkey.NewClaim(pub, claim.Token)
		must(t, err)
		same, err := joinkey.ParseClaim(again)
		must(t, err)
		if same.KeyHash != claim.KeyHash || same.Token != claim.Token {
			t.Fatalf("%q is %+v, and written again %+v", message, claim, same)
		}
		if _, err := joinkey.AgentID(td, "", claim.KeyHash); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzResponse holds that no response but one by the key passes, whatever the
// challenge looks like, and that neither parser breaks.
func FuzzResponse(f *testing.F) {
	key, err := joinkey.GenerateKey()
	must(f, err)
	message, err := joinkey.NewClaim(key.Public(), "")
	must(f, err)
	claim, err := joinkey.ParseClaim(message)
	must(f, err)
	challenge, err := joinkey.NewChallenge()
	must(f, err)
	good, err := joinkey.Respond(key, message, challenge, attempt("one"))
	must(f, err)
	f.Add(challenge, good)
	f.Add([]byte(`{"nonce":""}`), []byte(`{"signature":""}`))
	f.Add([]byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, asked, response []byte) {
		if claim.Verify(challenge, response, attempt("two")) == nil {
			t.Fatalf("%q passes on a connection that it is not for", response)
		}
		answer, err := joinkey.Respond(key, message, asked, attempt("one"))
		if err == nil {
			must(t, claim.Verify(asked, answer, attempt("one")))
		}
	})
}
