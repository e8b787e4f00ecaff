package enroll_test

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
)

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestNodeKeyIsBoundByTheTokenAndThenEnough(t *testing.T) {
	r := newRig(t)
	token := r.token(enroll.TokenRequest{Group: "edge", Selectors: []registration.Selector{{Type: "site", Value: "berlin"}}})
	n := r.node()
	_, err := n.join("")
	wantErr(t, "a key that nobody knows", err, enroll.ErrKeyUnknown)

	first, err := n.join(token.Token)
	must(t, err)
	hash := n.hash()
	want := spiffeid.RequireFromString("spiffe://lanyard.test/spire/agent/join_key/edge/" + hex.EncodeToString(hash[:]))
	if first.ID != want || !first.Reattestable || strings.Contains(first.ID.String(), token.Token) {
		t.Errorf("admission: %+v", first)
	}
	agent := r.agent(first.ID)
	var selectors []string
	for _, s := range agent.Selectors {
		selectors = append(selectors, s.Type+":"+s.Value)
	}
	if diff := cmp.Diff([]string{"join_key:group:edge", "join_key:token:" + token.ID, "site:berlin"}, selectors); diff != "" {
		t.Error(diff)
	}
	if agent.AttestationType != "join_key" || !agent.CanReattest || agent.Serial != first.SVID[0].SerialNumber.String() {
		t.Errorf("agent: %v", agent)
	}

	// The token is over, and gone; the key is not.
	must(t, r.RevokeToken(t.Context(), token.ID))
	for _, shown := range []string{"", token.Token, "some-other-token"} {
		again, err := n.join(shown)
		must(t, err)
		if now := r.agent(again.ID); again.ID != first.ID || now.Serial != again.SVID[0].SerialNumber.String() || len(now.Selectors) != 3 {
			t.Errorf("joined again with token %q as %s: %v", shown, again.ID, now)
		}
	}
}

// The answer was lost: the same key comes again, and that is no second use.
func TestLostReplyIsRetriedByTheSameKey(t *testing.T) {
	r := newRig(t)
	token := r.token(enroll.TokenRequest{MaxUses: 2})
	a, b := r.node(), r.node()
	for range 3 {
		_, err := a.join(token.Token)
		must(t, err)
	}
	_, err := b.join(token.Token)
	must(t, err)
	tokens, err := r.Tokens(t.Context())
	must(t, err)
	if len(tokens) != 1 || tokens[0].Uses != 2 || tokens[0].MaxUses != 2 || len(tokens[0].Agents) != 2 {
		t.Errorf("tokens: %+v", tokens)
	}
	_, err = r.node().join(token.Token)
	wantErr(t, "a third key", err, enroll.ErrTokenSpent)
}

func TestGuardStolenTokenIsWorthNothingOnceSpent(t *testing.T) {
	r := newRig(t)
	token := r.token(enroll.TokenRequest{})
	owner, thief := r.node(), r.node()
	first, err := owner.join(token.Token)
	must(t, err)
	_, err = thief.join(token.Token)
	wantErr(t, "the thief", err, enroll.ErrTokenSpent)
	if got := r.agent(first.ID).Serial; got != first.SVID[0].SerialNumber.String() {
		t.Error("the owner was put out")
	}
	// Nor is the claim that the owner sent, overheard or replayed.
	overheard := owner.attempt(token.Token)
	replayed := overheard
	replayed.CSR = newCSR(t, newKey(t))
	_, err = r.Attest(t.Context(), replayed)
	wantErr(t, "the owner's proof for another CSR", err, enroll.ErrRefused)
	relayed := overheard
	relayed.Exporter = exporter("another")
	_, err = r.Attest(t.Context(), relayed)
	wantErr(t, "the owner's proof over another connection", err, enroll.ErrRefused)
	old := overheard
	var nonce []byte
	must(t, func() error { _, err := r.Attest(t.Context(), recording(overheard, &nonce)); return err }())
	old.Challenge = func(ctx context.Context, _ []byte) ([]byte, error) { return overheard.Challenge(ctx, nonce) }
	_, err = r.Attest(t.Context(), old)
	wantErr(t, "a proof of an old nonce", err, enroll.ErrRefused)
	bare := overheard
	bare.Exporter = nil
	_, err = r.Attest(t.Context(), bare)
	wantErr(t, "no TLS", err, enroll.ErrRefused)
}

// recording keeps the challenge that was asked.
func recording(a enroll.Attempt, challenge *[]byte) enroll.Attempt {
	respond := a.Challenge
	a.Challenge = func(ctx context.Context, c []byte) ([]byte, error) {
		*challenge = c
		return respond(ctx, c)
	}
	return a
}

func TestTokenIsGoodOnlyWithinItsCIDRs(t *testing.T) {
	r := newRig(t)
	token := r.token(enroll.TokenRequest{CIDRs: []netip.Prefix{
		netip.MustParsePrefix("10.1.2.3/16"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:203.0.113.0/120"),
	}, MaxUses: 10})
	for peer, allowed := range map[string]bool{
		"10.1.255.255": true, "10.2.0.1": false, "2001:db8::1%eth0": true, "2001:db9::1": false, "::ffff:10.1.0.1": true, "203.0.113.77": true, "": false,
	} {
		n := r.node()
		n.peer, _ = netip.ParseAddr(peer)
		_, err := n.join(token.Token)
		if allowed {
			must(t, err)
			n.peer = netip.MustParseAddr("198.51.100.1") // moved: the key is enough
			_, err = n.join("")
			must(t, err)
			continue
		}
		wantErr(t, "from "+peer, err, enroll.ErrTokenPlace)
	}
}

func TestTokenGivesASecondID(t *testing.T) {
	r := newRig(t)
	alias := spiffeid.RequireFromPath(td, "/node/berlin-1")
	n := r.node()
	first, err := n.join(r.token(enroll.TokenRequest{AgentID: alias}).Token)
	must(t, err)
	entries := r.entries()
	if len(entries) != 1 || entries[0].SPIFFEID != alias || entries[0].ParentID != first.ID {
		t.Fatalf("entries: %v", entries)
	}
	r.evict(first.ID)
	if left := r.entries(); len(left) != 0 {
		t.Errorf("the entry outlived the agent: %v", left)
	}
}

// A key bound with one group keeps its ID, whatever token it shows later.
func TestKeyKeepsItsID(t *testing.T) {
	r := newRig(t)
	n := r.node()
	first, err := n.join(r.token(enroll.TokenRequest{Group: "a"}).Token)
	must(t, err)
	other := r.token(enroll.TokenRequest{Group: "b"})
	again, err := n.join(other.Token)
	must(t, err)
	if again.ID != first.ID {
		t.Errorf("became %s", again.ID)
	}
	tokens, err := r.Tokens(t.Context())
	must(t, err)
	for _, token := range tokens {
		if token.ID == other.ID && token.Uses != 0 {
			t.Errorf("the other token was used: %+v", token)
		}
	}
}

func TestMalformedClaims(t *testing.T) {
	r := newRig(t)
	n := r.node()
	for name, payload := range map[string]string{"empty object": "{}", "no JSON": "x", "no key": `{"public_key":"aGVsbG8="}`, "null": "null"} {
		a := n.attempt("")
		a.Payload = []byte(payload)
		_, err := r.Attest(t.Context(), a)
		wantErr(t, name, err, enroll.ErrMalformed)
	}
	a := n.attempt("")
	a.Challenge = nil
	if _, err := r.Attest(t.Context(), a); err == nil {
		t.Error("admitted without a challenge")
	}
	a = n.attempt("")
	a.Challenge = func(context.Context, []byte) ([]byte, error) { return []byte("{}"), nil }
	_, err := r.Attest(t.Context(), a)
	wantErr(t, "an empty response", err, enroll.ErrRefused)
}

// A token is for one method.
func TestTokensOfOtherMethods(t *testing.T) {
	r := newRig(t)
	ofKey, ofToken := r.token(enroll.TokenRequest{}), r.token(enroll.TokenRequest{Method: "join_token"})
	_, err := r.Attest(t.Context(), attempt(t, ofKey.Token))
	wantErr(t, "a join_key token by join_token", err, enroll.ErrTokenSpent)
	_, err = r.node().join(ofToken.Token)
	wantErr(t, "a join_token token by join_key", err, enroll.ErrTokenSpent)
	_, err = r.node().join(ofKey.Token)
	must(t, err)
	_, err = r.Attest(t.Context(), attempt(t, ofToken.Token))
	must(t, err)
}

func TestRateKeyHidesTheToken(t *testing.T) {
	key := enroll.RateKey("join_token", []byte("secret-token"))
	if strings.Contains(key, "secret") || key == enroll.RateKey("join_token", []byte("other")) || key == enroll.RateKey("x509pop", []byte("secret-token")) {
		t.Error(key)
	}
}
