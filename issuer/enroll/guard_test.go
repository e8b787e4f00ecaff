package enroll_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

// SPIRE lets two agents in here.
func TestGuardTokenRace(t *testing.T) {
	r := newRig(t)
	ofToken, ofKey := r.token(enroll.TokenRequest{Method: "join_token"}), r.token(enroll.TokenRequest{})
	for method, try := range map[string]func() enroll.Attempt{
		"join_token": func() enroll.Attempt { return attempt(t, ofToken.Token) },
		"join_key":   func() enroll.Attempt { return r.node().attempt(ofKey.Token) },
	} {
		t.Run(method, func(t *testing.T) {
			attempts := make([]enroll.Attempt, 100)
			for i := range attempts {
				attempts[i] = try()
			}
			var admitted atomic.Int32
			race(len(attempts), func(i int) {
				switch _, err := r.Attest(t.Context(), attempts[i]); {
				case err == nil:
					admitted.Add(1)
				case !errors.Is(err, enroll.ErrTokenSpent):
					t.Error(err)
				}
			})
			if n := admitted.Load(); n != 1 {
				t.Errorf("%d keys joined with one token, want 1", n)
			}
		})
	}
}

// race calls f with 0 to n-1 at once.
func race(n int, f func(i int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// A fleet joins with one token, each node once.
func TestManyNodesShareATokenAtOnce(t *testing.T) {
	r := newRig(t)
	const nodes, uses = 60, 50
	token := r.token(enroll.TokenRequest{MaxUses: uses})
	attempts := make([]enroll.Attempt, nodes)
	for i := range attempts {
		attempts[i] = r.node().attempt(token.Token)
	}
	var admitted atomic.Int32
	race(nodes, func(i int) {
		for range 2 { // an answer that was lost
			_, err := r.Attest(t.Context(), attempts[i])
			if err != nil {
				wantErr(t, "a node too many", err, enroll.ErrTokenSpent)
				return
			}
		}
		admitted.Add(1)
	})
	if n := admitted.Load(); n != uses {
		t.Errorf("%d nodes joined with %d uses", n, uses)
	}
}

// A lost reply and a malformed CSR cost SPIRE's agents their token.
func TestGuardCSRIsCheckedBeforeTheTokenIsSpent(t *testing.T) {
	r := newRig(t)
	ofToken, n := r.token(enroll.TokenRequest{Method: "join_token"}), r.node()
	ofKey := r.token(enroll.TokenRequest{})
	for name, try := range map[string]func() enroll.Attempt{
		"join_token": func() enroll.Attempt { return attempt(t, ofToken.Token) },
		"join_key":   func() enroll.Attempt { return n.attempt(ofKey.Token) },
	} {
		bad := try()
		bad.CSR = bad.CSR[:len(bad.CSR)-1]
		challenged := false
		bad.Challenge = func(context.Context, []byte) ([]byte, error) { challenged = true; return nil, errors.New("no") }
		_, err := r.Attest(t.Context(), bad)
		wantErr(t, name, err, ca.ErrCSRMalformed)
		if challenged {
			t.Errorf("%s: challenged before the CSR was checked", name)
		}
		_, err = r.Attest(t.Context(), try()) // by another key
		must(t, err)
	}
}

// To sign costs milliseconds with some keys: not for who guesses tokens.
func TestGuardNothingIsSignedForAGuessedToken(t *testing.T) {
	r := newUnloadedRig(t) // cannot sign
	spent := r.token(enroll.TokenRequest{Method: "join_token"})
	_, err := r.Attest(t.Context(), attempt(t, "guessed"))
	wantErr(t, "a guessed token", err, enroll.ErrTokenSpent)
	_, err = r.Attest(t.Context(), attempt(t, spent.Token))
	wantErr(t, "a good token", err, ca.ErrNotReady)
	must(t, r.ca.Load(t.Context()))
	_, err = r.Attest(t.Context(), attempt(t, spent.Token))
	must(t, err)
}

// SPIRE signs for keys that the agent need not have.
func TestGuardProofOfPossessionOfTheCSRsKey(t *testing.T) {
	r := newRig(t)
	token := r.token(enroll.TokenRequest{Method: "join_token"})
	victim, thief := newCSR(t, newKey(t)), newCSR(t, newKey(t))
	forged := attempt(t, token.Token)
	forged.CSR = graft(t, victim, thief)
	if parsed, err := x509.ParseCertificateRequest(forged.CSR); err != nil || !bytes.Contains(victim, parsed.RawSubjectPublicKeyInfo) {
		t.Fatalf("the forged CSR: %v", err)
	}
	_, err := r.Attest(t.Context(), forged)
	wantErr(t, "a CSR for a key of another", err, ca.ErrCSRSignature)
	_, err = r.Attest(t.Context(), attempt(t, token.Token))
	must(t, err)
}

// graft returns the request of one CSR with the signature of the other.
func graft(t *testing.T, request, signature []byte) []byte {
	t.Helper()
	type csr struct{ Request, Algorithm, Signature asn1.RawValue }
	var a, b csr
	for der, into := range map[*[]byte]*csr{&request: &a, &signature: &b} {
		if _, err := asn1.Unmarshal(*der, into); err != nil {
			t.Fatal(err)
		}
	}
	a.Signature = b.Signature
	der, err := asn1.Marshal(a)
	must(t, err)
	return der
}
