package upstream_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// agent is a client that runs until the test's end, or stop.
type agent struct {
	*upstream.Client
	t      *testing.T
	states chan upstream.State
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan error
	err    error
	once   sync.Once

	running sync.WaitGroup
}

func config(s *spiretest.Server, dir, token string) upstream.Config {
	return upstream.Config{
		TrustDomain: s.CA.TrustDomain, DataDir: dir, ServerAddress: s.Addr,
		JoinToken: token, TrustBundle: s.CA.Bundle(), SyncInterval: 20 * time.Millisecond,
	}
}

func start(t *testing.T, cfg upstream.Config) *agent {
	t.Helper()
	client, err := upstream.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{Client: client, t: t, states: make(chan upstream.State), ctx: ctx, cancel: cancel, ended: make(chan error, 1)}
	a.running.Go(func() {
		defer cancel()
		a.ended <- client.Run(ctx)
	})
	a.running.Go(func() {
		client.Watch(ctx, func(state upstream.State) {
			select {
			case a.states <- state:
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() { cancel(); a.running.Wait() })
	return a
}

// end returns what Run returned.
func (a *agent) end() error {
	a.once.Do(func() { a.err = <-a.ended })
	return a.err
}

func (a *agent) stop() {
	a.cancel()
	a.end()
}

// await returns the first state that cond is true of.
func (a *agent) await(what string, cond func(upstream.State) bool) upstream.State {
	a.t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case state := <-a.states:
			if cond(state) {
				return state
			}
		case err := <-a.ended:
			a.t.Fatalf("ended: %v", err)
		case <-timeout.C:
			a.t.Fatalf("waited a minute for: %s", what)
		}
	}
}

func (a *agent) synced() upstream.State {
	a.t.Helper()
	return a.await("a sync", func(upstream.State) bool { return true })
}

func entry(s *spiretest.Server, token, id string) registration.Entry {
	return registration.Entry{
		ID: id, SPIFFEID: spiffeid.RequireFromPath(s.CA.TrustDomain, "/"+id), ParentID: s.AgentID(token),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
	}
}

func entryIDs(state upstream.State) []string {
	ids := []string{}
	for _, e := range state.Entries {
		ids = append(ids, e.ID)
	}
	return ids
}

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
		"unknown": "is unknown to issuer",
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

// enrolled makes the data directory of an agent that joined with the token and
// has an SVID valid from an hour ago until end from now.
func enrolled(t *testing.T, s *spiretest.Server, token string, end time.Duration) (dir string) {
	t.Helper()
	svid := s.CA.SVID(t, s.AgentID(token).String(), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(end)))
	s.Enroll(token, svid)
	chain, key, err := svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := s.CA.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	dir = t.TempDir()
	for name, content := range map[string]any{
		"agent-data.json": map[string]any{"svid": [][]byte{chain}, "bundle": [][]byte{bundle}},
		"keys.json":       map[string]any{"keys": map[string][]byte{"agent-svid-A": block.Bytes}},
	} {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRenewsAtHalfLife(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := enrolled(t, s, "tok", 30*time.Minute)
	first, _ := s.Serials(s.AgentID("tok"))
	a := start(t, config(s, dir, ""))
	a.drain()
	s.Await("the renewed SVID in use", func() bool {
		now, next := s.Serials(s.AgentID("tok"))
		return now.Cmp(first) != 0 && next == nil
	})
	calls := s.Calls("SyncAuthorizedEntries")
	s.Await("the next sync", func() bool { return s.Calls("SyncAuthorizedEntries") > calls+1 })
	a.stop()
	if n := s.Calls("RenewAgent"); n != 1 {
		t.Errorf("renewed %d times", n)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "keys.json"))
	if err != nil || strings.Contains(string(keys), "agent-svid-A") || !strings.Contains(string(keys), "agent-svid-B") {
		t.Errorf("the old key is on disk still, or the new one is not: %v", err)
	}
	start(t, config(s, dir, "")).synced()
}

// drain lets the agent go on syncing without anyone looking.
func (a *agent) drain() {
	a.running.Go(func() {
		for {
			select {
			case <-a.states:
			case <-a.ctx.Done():
				return
			}
		}
	})
}

// The issuer answered a renewal and then forgot it: the SVID before is good
// still, on disk too.
func TestRenewalLostByTheIssuer(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.LoseRenewals = true })
	dir := enrolled(t, s, "tok", 30*time.Minute)
	first, _ := s.Serials(s.AgentID("tok"))
	a := start(t, config(s, dir, ""))
	a.drain()
	s.Await("a renewal that is lost", func() bool { return s.Calls("RenewAgent") == 1 })
	s.Set(func(sw *spiretest.Switches) { sw.LoseRenewals = false })
	s.Await("a renewal that is not", func() bool {
		now, _ := s.Serials(s.AgentID("tok"))
		return now.Cmp(first) != 0
	})
	a.stop()
	start(t, config(s, dir, "")).synced()
}

func TestRefusals(t *testing.T) {
	for name, refuse := range map[string]struct {
		do     func(*spiretest.Server, spiffeid.ID)
		reason types.PermissionDeniedDetails_Reason
		want   string
	}{
		"banned":  {(*spiretest.Server).Ban, types.PermissionDeniedDetails_AGENT_BANNED, "agent evict"},
		"evicted": {(*spiretest.Server).Evict, types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, "token generate"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spiretest.New(t, "example.org")
			dir := t.TempDir()
			a := start(t, config(s, dir, s.Token("tok", time.Hour)))
			a.synced()
			a.drain()
			refuse.do(s, s.AgentID("tok"))
			err := a.end()
			refused, ok := errors.AsType[*upstream.RefusedError](err)
			if !ok || refused.Reason != refuse.reason || !strings.Contains(err.Error(), refuse.want) {
				t.Errorf("ended with %v", err)
			}
			if _, err := upstream.Open(config(s, dir, "")); !errors.Is(err, upstream.ErrNoIdentity) {
				t.Errorf("opened again: %v", err)
			}
		})
	}
}

func TestEvictedAgentUsesItsNewToken(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, config(s, dir, s.Token("old", time.Hour)))
	a.synced()
	a.stop()
	s.Evict(s.AgentID("old"))
	b := start(t, config(s, dir, s.Token("new", time.Hour)))
	b.synced()
	if b.ID() != s.AgentID("new") {
		t.Errorf("agent is %s", b.ID())
	}
}

func TestExpiredAgentNamesTheMend(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := enrolled(t, s, "tok", -time.Minute)
	if _, err := upstream.Open(config(s, dir, "")); err == nil || !strings.Contains(err.Error(), "expired at") || !strings.Contains(err.Error(), "token generate") {
		t.Errorf("opened: %v", err)
	}
	// Within its life the token is still good for the same key.
	start(t, config(s, dir, "tok")).synced()
}

func TestOutlastsARestartOfTheIssuer(t *testing.T) {
	s := spiretest.New(t, "example.org")
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	a.synced()
	s.Stop()
	s.Put(entry(s, "tok", "later"))
	s.Start()
	a.await("what changed meanwhile", func(state upstream.State) bool { return len(state.Entries) == 1 })
}

// SPIRE's server ends each connection after three minutes.
func TestOutlastsTheEndOfConnections(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Stop()
	s.Set(func(sw *spiretest.Switches) { sw.MaxConnectionAge = 30 * time.Millisecond })
	s.Start()
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.SyncInterval = 5 * time.Millisecond
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := start(t, cfg)
	for range 50 {
		a.synced()
	}
	a.stop()
	a.running.Wait()
	if strings.Contains(log.String(), "cannot sync") {
		t.Errorf("a sync failed:\n%s", &log)
	}
}

func TestStartsBeforeTheIssuer(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Stop()
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	s.Start()
	a.synced()
}

func TestFederatedBundles(t *testing.T) {
	s := spiretest.New(t, "example.org")
	known, unknown := testca.New(t, "known.org"), spiffeid.RequireTrustDomainFromString("unknown.org")
	s.Federate(known.Bundle())
	e := entry(s, "tok", "a")
	e.FederatesWith = []spiffeid.TrustDomain{known.TrustDomain, unknown}
	s.Put(e)
	state := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour))).synced()
	if len(state.Federated) != 1 || !state.Federated[known.TrustDomain].Equal(known.Bundle()) {
		t.Errorf("federated: %v", state.Federated)
	}
}

func TestBundleChangesAreKept(t *testing.T) {
	s := spiretest.New(t, "example.org")
	dir := t.TempDir()
	a := start(t, config(s, dir, s.Token("tok", time.Hour)))
	a.synced()
	s.AddAuthority()
	a.await("the new authority", func(state upstream.State) bool { return len(state.Bundle.X509Authorities()) == 2 })
	a.stop()
	b, err := os.ReadFile(filepath.Join(dir, "agent-data.json"))
	if err != nil {
		t.Fatal(err)
	}
	var data struct{ Bundle [][]byte }
	if err := json.Unmarshal(b, &data); err != nil || len(data.Bundle) != 2 {
		t.Errorf("%d authorities on disk, %v", len(data.Bundle), err)
	}
}
