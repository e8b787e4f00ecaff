package upstream_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// enrolled makes the data directory of an agent that joined with the token and
// has an SVID valid from an hour ago until end from now.
func enrolled(t *testing.T, s *spiretest.Server, token string, end time.Duration) (dir string) {
	t.Helper()
	svid := s.CA.SVID(t, s.AgentID(token).String(), testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(end)))
	s.Enroll(token, svid)
	dir = t.TempDir()
	writeState(t, s, dir, svid)
	return dir
}

// writeState makes dir that of an agent with the SVID.
func writeState(t *testing.T, s *spiretest.Server, dir string, svid *x509svid.SVID) {
	t.Helper()
	chain, key, err := svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := s.CA.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
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
}

func TestRenewsAtHalfLife(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
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
