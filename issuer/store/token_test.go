package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var noon = time.Unix(1_800_000_000, 0)

var agentID = id("/spire/agent/join_token/secret-token")

func agentRecord(serial string) *storepb.Agent {
	return &storepb.Agent{SpiffeId: agentID.String(), AttestationType: "join_token", Serial: serial, NotAfter: 7}
}

// join spends "secret-token" with the key and the time.
func join(s *store.Store, t *testing.T, key byte, serial string, now time.Time) error {
	t.Helper()
	got, rev, err := s.SpendToken(t.Context(), store.Join{Token: "secret-token", KeyHash: [32]byte{key}, Agent: agentRecord(serial), Now: now})
	if err == nil && (rev == 0 || !cmp.Equal(got, agentRecord(serial), protocmp.Transform())) {
		t.Errorf("joined as %v at revision %d", got, rev)
	}
	return err
}

func newToken(t *testing.T, s *store.Store, alias string) {
	t.Helper()
	if err := s.CreateToken(t.Context(), "secret-token", &storepb.JoinToken{ExpiresAt: noon.Unix() + 10, AgentId: alias}); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestTokenIsSpentOnceByOneKey(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	wantErr(t, join(s, t, 1, "1", noon), store.ErrTokenUnknown)
	newToken(t, s, id("/node").String())
	wantErr(t, s.CreateToken(t.Context(), "secret-token", &storepb.JoinToken{}), store.ErrExists)

	wantErr(t, join(s, t, 1, "1", noon), nil)
	wantErr(t, join(s, t, 2, "2", noon), store.ErrTokenUnknown)
	// The answer was lost: the same key asks again.
	wantErr(t, join(s, t, 1, "3", noon.Add(9*time.Second)), nil)

	snap := snapshot(t, s)
	if len(snap.Agents) != 1 || !cmp.Equal(snap.Agents[0], agentRecord("3"), protocmp.Transform()) {
		t.Errorf("agents: %v", snap.Agents)
	}
	if len(snap.Entries) != 1 {
		t.Fatalf("entries: %v", snap.Entries)
	}
	alias := snap.Entries[0]
	if alias.SPIFFEID != id("/node") || alias.ParentID != agentID || len(alias.Selectors) != 1 ||
		alias.Selectors[0].String() != "spiffe_id:"+agentID.String() || alias.CreatedAt.IsZero() {
		t.Errorf("alias: %v", alias)
	}
}

func TestExpiredTokenIsDeleted(t *testing.T) {
	t.Parallel()
	for name, spent := range map[string]bool{"unspent": false, "spent by the same key": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			newToken(t, s, "")
			if spent {
				wantErr(t, join(s, t, 1, "1", noon), nil)
			}
			late := noon.Add(10 * time.Second)
			wantErr(t, join(s, t, 1, "1", late), store.ErrTokenExpired)
			wantErr(t, join(s, t, 1, "1", late), store.ErrTokenUnknown)
			wantErr(t, join(s, t, 1, "1", noon), store.ErrTokenUnknown)
		})
	}
}

// SPIRE lets two agents in here.
func TestConcurrentJoinsAdmitOneKey(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newToken(t, s, id("/node").String())
	var admitted atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for key := range 32 {
		wg.Go(func() {
			<-start
			switch err := join(s, t, byte(key+1), "1", noon); {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, store.ErrTokenUnknown):
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := admitted.Load(); n != 1 {
		t.Errorf("%d keys were admitted, want 1", n)
	}
	if snap := snapshot(t, s); len(snap.Agents) != 1 || len(snap.Entries) != 1 {
		t.Errorf("%d agents, %d entries", len(snap.Agents), len(snap.Entries))
	}
}

func TestConcurrentJoinsOfOneKeyAllSucceed(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newToken(t, s, id("/node").String())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { wantErr(t, join(s, t, 1, "1", noon), nil) })
	}
	wg.Wait()
	if n := len(snapshot(t, s).Entries); n != 1 {
		t.Errorf("%d alias entries, want 1", n)
	}
}

func TestAliasThatIsThereIsLeft(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	made := create(t, s, registration.Entry{
		SPIFFEID: id("/node"), ParentID: agentID, Hint: "by hand",
		Selectors: []registration.Selector{{Type: "spiffe_id", Value: agentID.String()}},
	})[0]
	newToken(t, s, id("/node").String())
	wantErr(t, join(s, t, 1, "1", noon), nil)
	if got := snapshot(t, s).Entries; len(got) != 1 || got[0].ID != made.ID {
		t.Errorf("entries: %v", got)
	}
}

func TestBannedAgentCannotJoinAgain(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newToken(t, s, "")
	wantErr(t, join(s, t, 1, "1", noon), nil)
	if _, _, err := s.UpdateAgent(t.Context(), agentID, func(a *storepb.Agent) error {
		a.Banned, a.Serial = true, ""
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, join(s, t, 1, "2", noon), store.ErrAgentBanned)
	if a := snapshot(t, s).Agents[0]; !a.Banned || a.Serial != "" {
		t.Errorf("agent: %v", a)
	}
}

func TestDeleteAgentTakesItsAliasesAndItsToken(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if _, err := s.DeleteAgent(t.Context(), agentID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("delete of none: %v", err)
	}
	newToken(t, s, id("/node").String())
	wantErr(t, join(s, t, 1, "1", noon), nil)
	self := registration.Selector{Type: "spiffe_id", Value: agentID.String()}
	kept := create(t, s,
		// One that anybody made in the same shape goes too, as with SPIRE.
		registration.Entry{SPIFFEID: id("/by-hand"), ParentID: agentID, Selectors: []registration.Selector{self}},
		registration.Entry{SPIFFEID: id("/web"), ParentID: agentID, Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}},
		registration.Entry{SPIFFEID: id("/two"), ParentID: agentID, Selectors: []registration.Selector{self, {Type: "x", Value: "y"}}},
		registration.Entry{SPIFFEID: id("/else"), ParentID: id("/spire/agent/join_token/secret-token-2"), Selectors: []registration.Selector{self}},
	)[1:]
	// One that became an alias, and one that is none any more.
	made := create(t, s, entry("becomes"), entry("was"))
	become := func(id string, selectors []registration.Selector) {
		if _, _, err := s.UpdateEntry(t.Context(), id, func(e *registration.Entry) error {
			e.ParentID, e.Selectors = agentID, selectors
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	become(made[0].ID, []registration.Selector{self})
	become(made[1].ID, []registration.Selector{self})
	become(made[1].ID, []registration.Selector{{Type: "unix", Value: "uid:9"}})

	before := snapshot(t, s)
	rev, err := s.DeleteAgent(t.Context(), agentID)
	if err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, s)
	if after.Revision != rev || rev != before.Revision+1 {
		t.Errorf("revisions %d, %d, %d: not one transaction", before.Revision, rev, after.Revision)
	}
	left := make(map[string]bool)
	for _, e := range after.Entries {
		left[e.ID] = true
	}
	for _, e := range append(kept, made[1]) {
		if !left[e.ID] {
			t.Errorf("%s is gone", e.SPIFFEID)
		}
	}
	if len(left) != len(kept)+1 || len(after.Agents) != 0 {
		t.Errorf("%d entries and %d agents are left: %v", len(left), len(after.Agents), after.Entries)
	}
	// Who was evicted needs a new token, whatever is left of the old one's life.
	wantErr(t, join(s, t, 1, "2", noon), store.ErrTokenUnknown)
	// All that derives from the entries is gone too.
	create(t, s, registration.Entry{SPIFFEID: id("/by-hand"), ParentID: agentID, Selectors: []registration.Selector{self}})
}

func TestUpdateAgent(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if _, _, err := s.UpdateAgent(t.Context(), agentID, func(*storepb.Agent) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("update of none: %v", err)
	}
	newToken(t, s, "")
	wantErr(t, join(s, t, 1, "1", noon), nil)

	// Promotions and renewals that come at once all count.
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, _, err := s.UpdateAgent(t.Context(), agentID, func(a *storepb.Agent) error {
				a.NotAfter++
				a.SpiffeId = "spiffe://lanyard.test/other"
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	before := snapshot(t, s)
	if a := before.Agents[0]; a.NotAfter != 7+16 || a.SpiffeId != agentID.String() {
		t.Errorf("agent: %v", a)
	}
	// What changes nothing writes nothing, and what is refused neither.
	a, rev, err := s.UpdateAgent(t.Context(), agentID, func(*storepb.Agent) error { return nil })
	if err != nil || rev != before.Revision || a.NotAfter != 7+16 {
		t.Errorf("no change: %v, %d, %v", a, rev, err)
	}
	refuse := errors.New("no")
	if _, _, err := s.UpdateAgent(t.Context(), agentID, func(a *storepb.Agent) error { a.Serial = "9"; return refuse }); err != refuse {
		t.Errorf("refused: %v", err)
	}
	if after := snapshot(t, s); after.Revision != before.Revision {
		t.Error("something was written")
	}
}

// Whoever copies the directory finds no token that is still good.
func TestTokenIsNotOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	token := "0b1f7f0c-b8a2-4f0c-9b53-1f3a7be0d1f4"
	if err := s.CreateToken(t.Context(), token, &storepb.JoinToken{ExpiresAt: noon.Unix()}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(token)) {
			t.Errorf("the token is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpdateCA(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if b := snapshot(t, s).Bundle; b != nil {
		t.Errorf("a new store has the bundle %v", b)
	}
	update := func(change func(*store.CAState)) store.Revision {
		t.Helper()
		rev, err := s.UpdateCA(t.Context(), func(c *store.CAState) error { change(c); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	check := func(sequence uint64, authorities ...string) {
		t.Helper()
		snap := snapshot(t, s)
		var ids []string
		for _, a := range snap.Authorities {
			ids = append(ids, a.AuthorityId)
		}
		if snap.Bundle.GetSequenceNumber() != sequence || !cmp.Equal(ids, authorities) || snap.Bundle.GetTrustDomain() != "lanyard.test" {
			t.Errorf("bundle %v, authorities %v; want sequence %d, %v", snap.Bundle, ids, sequence, authorities)
		}
	}
	update(func(c *store.CAState) {
		c.Bundle.X509Authorities = append(c.Bundle.X509Authorities, &types.X509Certificate{Asn1: []byte("one")})
		c.Authorities = append(c.Authorities, &storepb.X509Authority{AuthorityId: "one", IssuedAt: 1})
	})
	check(1, "one")
	update(func(c *store.CAState) { // no new authority in the bundle
		c.Bundle.RefreshHint, c.Bundle.SequenceNumber, c.Bundle.TrustDomain = 60, 99, "other.test"
		c.Authorities = append(c.Authorities, &storepb.X509Authority{AuthorityId: "a", IssuedAt: 2})
	})
	check(1, "one", "a")
	update(func(c *store.CAState) {
		c.Bundle.X509Authorities[0].Tainted = true
		c.Authorities = c.Authorities[1:]
	})
	check(2, "a")
	update(func(c *store.CAState) {
		c.Bundle.JwtAuthorities = append(c.Bundle.JwtAuthorities, &types.JWTKey{KeyId: "k"})
		c.Authorities[0].Status = storepb.X509Authority_ACTIVE
	})
	check(3, "a")
	before := snapshot(t, s)
	if rev := update(func(*store.CAState) {}); rev > before.Revision || snapshot(t, s).Revision != before.Revision {
		t.Error("no change was written")
	}
	refuse := errors.New("no")
	if _, err := s.UpdateCA(t.Context(), func(c *store.CAState) error { c.Authorities = nil; return refuse }); err != refuse {
		t.Errorf("refused: %v", err)
	}
	if _, err := s.UpdateCA(t.Context(), func(c *store.CAState) error {
		c.Authorities = append(c.Authorities, c.Authorities[0])
		return nil
	}); err == nil {
		t.Error("the same authority twice was stored")
	}
	check(3, "a")
}

func TestConcurrentCAUpdatesAllCount(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := string(rune('a' + i))
			if _, err := s.UpdateCA(t.Context(), func(c *store.CAState) error {
				c.Bundle.X509Authorities = append(c.Bundle.X509Authorities, &types.X509Certificate{Asn1: []byte(name)})
				c.Authorities = append(c.Authorities, &storepb.X509Authority{AuthorityId: name})
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	snap := snapshot(t, s)
	if len(snap.Bundle.X509Authorities) != 16 || len(snap.Authorities) != 16 || snap.Bundle.SequenceNumber != 16 {
		t.Errorf("%d in the bundle, %d of the issuer, sequence %d", len(snap.Bundle.X509Authorities), len(snap.Authorities), snap.Bundle.SequenceNumber)
	}
}
