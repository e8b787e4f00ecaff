package store_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// bind has a key join with "key-token", or without one.
func bind(s *store.Store, t *testing.T, j store.KeyJoin) (*storepb.Agent, error) {
	t.Helper()
	if j.Now.IsZero() {
		j.Now = noon
	}
	id, err := s.KeyAgent(t.Context(), j)
	if err != nil {
		if agent, _, again := s.BindKey(t.Context(), j, &storepb.Agent{SpiffeId: "spiffe://one.test/x"}); again == nil || errors.Is(again, store.ErrConflict) {
			t.Errorf("KeyAgent says %v, BindKey %v, %v", err, agent, again)
		}
		return nil, err
	}
	agent, _, err := s.BindKey(t.Context(), j, &storepb.Agent{SpiffeId: id.String(), AttestationType: "join_key", Serial: "1", CanReattest: true})
	return agent, err
}

func newKeyToken(t *testing.T, s *store.Store, change func(*storepb.JoinToken)) {
	t.Helper()
	rec := &storepb.JoinToken{Method: "join_key", Id: "name", ExpiresAt: noon.Unix() + 10, MaxUses: 1, Selectors: []*types.Selector{{Type: "site", Value: "x"}}}
	if change != nil {
		change(rec)
	}
	if err := s.CreateToken(t.Context(), "key-token", rec); err != nil {
		t.Fatal(err)
	}
}

func TestKeyIsBoundUntilItsAgentIsEvicted(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newKeyToken(t, s, nil)
	join := store.KeyJoin{KeyHash: [32]byte{1}, Token: "key-token"}
	first, err := bind(s, t, join)
	wantErr(t, err, nil)
	if len(first.GetSelectors()) != 2 || !strings.HasSuffix(first.GetSpiffeId(), "/spire/agent/join_key/01"+strings.Repeat("00", 31)) {
		t.Errorf("agent: %v", first)
	}
	_, err = bind(s, t, store.KeyJoin{KeyHash: [32]byte{2}, Token: "key-token"})
	wantErr(t, err, store.ErrTokenUnknown)
	bare := store.KeyJoin{KeyHash: [32]byte{1}, Now: noon.Add(365 * 24 * time.Hour)}
	again, err := bind(s, t, bare)
	wantErr(t, err, nil)
	if again.GetSpiffeId() != first.GetSpiffeId() || len(again.GetSelectors()) != 2 {
		t.Errorf("agent: %v", again)
	}
	if _, err := s.DeleteAgent(t.Context(), spiffeid.RequireFromString(first.GetSpiffeId())); err != nil {
		t.Fatal(err)
	}
	_, err = bind(s, t, bare)
	wantErr(t, err, store.ErrKeyUnknown)
	_, err = bind(s, t, join)
	wantErr(t, err, store.ErrTokenUnknown)
}

// A node whose agent was pruned comes back by its key, unless it is evicted.
func TestPrunedNodeIsEvictedByItsKey(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newKeyToken(t, s, nil)
	agent, err := bind(s, t, store.KeyJoin{KeyHash: [32]byte{1}, Token: "key-token"})
	wantErr(t, err, nil)
	id := spiffeid.RequireFromString(agent.GetSpiffeId())
	bare := store.KeyJoin{KeyHash: [32]byte{1}}
	prune := func() {
		t.Helper()
		_, err := s.PruneAgent(t.Context(), id, func(*storepb.Agent) bool { return true })
		wantErr(t, err, nil)
	}
	prune()
	_, err = bind(s, t, bare)
	wantErr(t, err, nil)
	prune()
	_, err = s.DeleteAgent(t.Context(), id)
	wantErr(t, err, nil)
	_, err = bind(s, t, bare)
	wantErr(t, err, store.ErrKeyUnknown)
	_, err = s.DeleteAgent(t.Context(), id)
	wantErr(t, err, store.ErrNotFound)
}

func TestRefusedKeyTokensAreNotUsed(t *testing.T) {
	t.Parallel()
	peer := netip.MustParseAddr("10.0.0.1")
	for name, test := range map[string]struct {
		change func(*storepb.JoinToken)
		join   store.KeyJoin
		want   error
	}{
		"elsewhere":    {func(r *storepb.JoinToken) { r.AllowedCidrs = []string{"10.1.0.0/16"} }, store.KeyJoin{Peer: peer}, store.ErrTokenPlace},
		"nowhere":      {func(r *storepb.JoinToken) { r.AllowedCidrs = []string{"0.0.0.0/0", "::/0"} }, store.KeyJoin{}, store.ErrTokenPlace},
		"used up":      {func(r *storepb.JoinToken) { r.Uses = 1 }, store.KeyJoin{}, store.ErrTokenUnknown},
		"other method": {func(r *storepb.JoinToken) { r.Method = "" }, store.KeyJoin{}, store.ErrTokenUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			newKeyToken(t, s, test.change)
			test.join.KeyHash, test.join.Token = [32]byte{1}, "key-token"
			before := tokens(t, s)
			_, err := bind(s, t, test.join)
			wantErr(t, err, test.want)
			if after := tokens(t, s); len(after) != 1 || after[0].Record.Uses != before[0].Record.Uses || len(after[0].Agents) != 0 {
				t.Errorf("tokens: %v", after)
			}
			if agents := snapshot(t, s).Agents; len(agents) != 0 {
				t.Errorf("agents: %v", agents)
			}
		})
	}
	s := open(t, t.TempDir())
	newKeyToken(t, s, nil)
	late := store.KeyJoin{KeyHash: [32]byte{1}, Token: "key-token", Now: noon.Add(10 * time.Second)}
	_, err := s.KeyAgent(t.Context(), late)
	wantErr(t, err, store.ErrTokenExpired)
	_, err = s.KeyAgent(t.Context(), late)
	wantErr(t, err, store.ErrTokenUnknown)
}

func tokens(t *testing.T, s *store.Store) []store.TokenInfo {
	t.Helper()
	all, err := s.Tokens(t.Context(), noon)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Uses are counted by etcd's conditions alone: the issuer's own turns are to
// spare tries, and another issuer would have its own.
func TestGuardUsesOfATokenAreCountedInARace(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const uses = 8
	newKeyToken(t, s, func(r *storepb.JoinToken) { r.MaxUses = uses })
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for key := range 24 {
		wg.Go(func() {
			switch _, err := bind(s, t, store.KeyJoin{KeyHash: [32]byte{byte(key + 1)}, Token: "key-token"}); {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, store.ErrTokenUnknown):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all := tokens(t, s)
	if admitted.Load() != uses || all[0].Record.Uses != uses || len(all[0].Agents) != uses || len(snapshot(t, s).Agents) != uses {
		t.Errorf("%d admitted, token: %v", admitted.Load(), all)
	}
}

// A ban holds for the key, with whatever token it comes, and over a restart.
func TestBanHoldsForTheKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	newKeyToken(t, s, func(r *storepb.JoinToken) { r.MaxUses = 5 })
	agent, err := bind(s, t, store.KeyJoin{KeyHash: [32]byte{1}, Token: "key-token"})
	wantErr(t, err, nil)
	if _, _, err := s.UpdateAgent(t.Context(), spiffeid.RequireFromString(agent.GetSpiffeId()), func(a *storepb.Agent) error {
		a.Banned, a.Serial = true, ""
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if err := s.CreateToken(t.Context(), "other", &storepb.JoinToken{Method: "join_key", Group: "g", ExpiresAt: noon.Unix() + 10, MaxUses: 1}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "key-token", "other"} {
		_, err := bind(s, t, store.KeyJoin{KeyHash: [32]byte{1}, Token: token})
		wantErr(t, err, store.ErrAgentBanned)
	}
}

func TestRevokedTokenAdmitsNobodyElse(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newKeyToken(t, s, func(r *storepb.JoinToken) { r.MaxUses = 5 })
	_, err := bind(s, t, store.KeyJoin{KeyHash: [32]byte{1}, Token: "key-token"})
	wantErr(t, err, nil)
	wantErr(t, s.RevokeToken(t.Context(), "name"), nil)
	wantErr(t, s.RevokeToken(t.Context(), "name"), store.ErrNotFound)
	wantErr(t, s.RevokeToken(t.Context(), ""), store.ErrNotFound)
	_, err = bind(s, t, store.KeyJoin{KeyHash: [32]byte{2}, Token: "key-token"})
	wantErr(t, err, store.ErrTokenUnknown)
	_, err = bind(s, t, store.KeyJoin{KeyHash: [32]byte{1}})
	wantErr(t, err, nil)
}

func TestAdmittedOnceOrAgain(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	record := func(serial string, again bool) *storepb.Agent {
		return &storepb.Agent{SpiffeId: id("/spire/agent/m/x").String(), AttestationType: "m", Serial: serial, CanReattest: again}
	}
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, _, err := s.AdmitAgent(t.Context(), record("1", false)); {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, store.ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != 1 {
		t.Errorf("%d were admitted by evidence that is good once", n)
	}
	agent, _, err := s.AdmitAgent(t.Context(), record("2", true))
	if err != nil || agent.Serial != "2" {
		t.Errorf("%v, %v", agent, err)
	}
}
