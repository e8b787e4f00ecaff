package nodeattest_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
)

func TestJoinTokenRoundTrip(t *testing.T) {
	const token = "3c6b5f1e-5d2f-4a53-8a7f-2a1f4f6f0d11"
	payload, err := nodeattest.ProveJoinToken(token)
	if err != nil {
		t.Fatal(err)
	}
	got, err := nodeattest.ParseJoinToken(payload)
	if err != nil || got != token {
		t.Fatalf("ParseJoinToken = %q, %v", got, err)
	}
	id, err := nodeattest.JoinTokenAgentID(spiffeid.RequireTrustDomainFromString("lanyard.test"), got)
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://lanyard.test/spire/agent/join_token/" + token; id.String() != want {
		t.Errorf("agent ID = %s, want %s", id, want)
	}
}

func TestBadJoinTokens(t *testing.T) {
	for _, token := range []string{"", ".", "..", "a/b", "../admin", "a b", "ä", "a\x00", "a%2fb", strings.Repeat("a", 256)} {
		_, err := nodeattest.ProveJoinToken(token)
		if err == nil {
			t.Errorf("ProveJoinToken(%q) took it", token)
			continue
		}
		if len(token) > 2 && strings.Contains(err.Error(), token) {
			t.Errorf("ProveJoinToken(%q): the error repeats the token: %v", token, err)
		}
		if _, err := nodeattest.ParseJoinToken([]byte(token)); err == nil {
			t.Errorf("ParseJoinToken(%q) took it", token)
		}
	}
}

func TestIsAgentID(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	for id, want := range map[string]bool{
		"spiffe://lanyard.test/spire/agent/join_token/a": true,
		"spiffe://lanyard.test/spire/agent":              false,
		"spiffe://lanyard.test/spire/agentx/a":           false,
		"spiffe://lanyard.test/spire/server":             false,
		"spiffe://other.test/spire/agent/join_token/a":   false,
		"spiffe://lanyard.test":                          false,
	} {
		if got := nodeattest.IsAgentID(td, spiffeid.RequireFromString(id)); got != want {
			t.Errorf("IsAgentID(%s) = %v", id, got)
		}
	}
}

// FuzzParseJoinToken holds that what the issuer accepts makes a valid agent ID,
// of its own namespace, that gives the token back.
func FuzzParseJoinToken(f *testing.F) {
	for _, seed := range []string{"a", "3c6b5f1e-5d2f-4a53-8a7f-2a1f4f6f0d11", "..", "a/b", "", "\xff"} {
		f.Add([]byte(seed))
	}
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	f.Fuzz(func(t *testing.T, payload []byte) {
		token, err := nodeattest.ParseJoinToken(payload)
		if err != nil {
			return
		}
		id, err := nodeattest.JoinTokenAgentID(td, token)
		if err != nil {
			t.Fatalf("accepted %q, but: %v", token, err)
		}
		const prefix = "spiffe://lanyard.test/spire/agent/join_token/"
		if !nodeattest.IsAgentID(td, id) || strings.TrimPrefix(id.String(), prefix) != token {
			t.Fatalf("token %q became %s", token, id)
		}
		again, err := nodeattest.ProveJoinToken(token)
		if err != nil || string(again) != string(payload) {
			t.Fatalf("ProveJoinToken(%q) = %q, %v", token, again, err)
		}
	})
}
