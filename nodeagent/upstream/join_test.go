package upstream_test

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

func TestJoinsAndStaysJoined(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(entry(s, "tok", "a"))
	dir := t.TempDir()
	a := start(t, config(s, dir, s.Token("tok", time.Hour)))
	state := a.synced()
	if got := entryIDs(state); !slices.Equal(got, []string{"a"}) || !state.Bundle.Equal(s.CA.Bundle()) {
		t.Errorf("entries %v, bundle %v", got, state.Bundle)
	}
	if a.ID() != s.AgentID("tok") {
		t.Errorf("agent is %s", a.ID())
	}
	a.stop()
	checkFiles(t, dir)

	cfg := config(s, dir, "")
	cfg.TrustBundle = nil
	start(t, cfg).synced()
	if n := s.Calls("AttestAgent"); n != 1 {
		t.Errorf("joined %d times, want once", n)
	}
}

// checkFiles holds the formats of spire-agent 1.15.
func checkFiles(t *testing.T, dir string) {
	t.Helper()
	var data struct {
		SVID   [][]byte `json:"svid"`
		Bundle [][]byte `json:"bundle"`
	}
	var keys struct {
		Keys map[string][]byte `json:"keys"`
	}
	for name, into := range map[string]any{"agent-data.json": &data, "keys.json": &keys} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(data.SVID) != 1 || len(data.Bundle) != 1 || !strings.HasPrefix(string(data.SVID[0]), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("agent-data.json has %d certificates and %d authorities", len(data.SVID), len(data.Bundle))
	}
	if _, err := x509.ParsePKCS8PrivateKey(keys.Keys["agent-svid-A"]); err != nil || len(keys.Keys) != 1 {
		t.Errorf("keys.json has %d keys: %v", len(keys.Keys), err)
	}
}

// The issuer spent the token; the answer never came, twice, and the agent was
// started anew in between.
func TestJoinOutlastsLostAnswers(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.LoseJoins = 2 })
	dir := t.TempDir()
	first := start(t, config(s, dir, s.Token("tok", time.Hour)))
	s.Await("the first try", func() bool { return s.Calls("AttestAgent") == 1 })
	first.stop()
	start(t, config(s, dir, "tok")).synced()
}

func TestUnusableTokens(t *testing.T) {
	s := spiretest.New(t, "example.org")
	start(t, config(s, t.TempDir(), s.Token("used", time.Hour))).synced()
	s.Token("expired", -time.Second)
	for token, want := range map[string]string{
		"used":    "was used already",
		"unknown": "; a token of join_key (token create) wants -nodeAttestor join_key",
		"expired": "has expired",
	} {
		err := start(t, config(s, t.TempDir(), token)).end()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "token generate") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", token, err)
		}
	}
}

func TestIssuerIsVerified(t *testing.T) {
	s := spiretest.New(t, "example.org")
	other := testca.New(t, "example.org").Bundle()
	for name, change := range map[string]func(*upstream.Config){
		"another authority": func(cfg *upstream.Config) { cfg.TrustBundle = other },
		"another domain": func(cfg *upstream.Config) {
			cfg.TrustDomain = spiffeid.RequireTrustDomainFromString("other.org")
			cfg.TrustBundle = testca.New(t, "other.org").Bundle()
		},
		"another domain, insecure": func(cfg *upstream.Config) {
			cfg.TrustDomain = spiffeid.RequireTrustDomainFromString("other.org")
			cfg.TrustBundle, cfg.InsecureBootstrap = nil, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
			change(&cfg)
			err := start(t, cfg).end()
			if err == nil || !strings.Contains(err.Error(), "check trust_domain") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if n := s.Calls("AttestAgent"); n != 0 {
				t.Error("the token was shown to a server that is not verified")
			}
		})
	}
}

func TestInsecureBootstrap(t *testing.T) {
	s := spiretest.New(t, "example.org")
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.TrustBundle, cfg.InsecureBootstrap = nil, true
	if state := start(t, cfg).synced(); !state.Bundle.Equal(s.CA.Bundle()) {
		t.Errorf("bundle %v", state.Bundle)
	}
}

func TestParseTrustBundle(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("example.org")
	good, err := testca.New(t, "example.org").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := testca.New(t, "other.org").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upstream.ParseTrustBundle(td, good); err != nil {
		t.Error(err)
	}
	for want, pem := range map[string][]byte{
		`of trust domain "other.org"`:    foreign,
		"not a list of PEM certificates": []byte("junk"),
		"has no certificate":             nil,
	} {
		if _, err := upstream.ParseTrustBundle(td, pem); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
