package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

func wantHad(t *testing.T, what string, s *store.Store, run store.Run, rev store.Revision, want bool) {
	t.Helper()
	if got := s.Had(run, rev); got != want {
		t.Errorf("%s: Had(%x, %d) = %v", what, run, rev, got)
	}
}

// A run is known in the next ones, as far as it went; in a copy, and in a
// directory that was put back to an earlier state, only as far as those went.
func TestRunsNameAHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	first := s.Run()
	start := snapshot(t, s).Revision
	create(t, s, entry("a"))
	end := snapshot(t, s).Revision
	wantHad(t, "this run", s, first, end, true)
	wantHad(t, "before it began", s, first, start-2, false)
	check(t, s.Close())
	put := filepath.Join(t.TempDir(), "put-back")
	check(t, os.CopyFS(put, os.DirFS(dir)))

	s = openStore(t, dir)
	second := s.Run()
	if second == first {
		t.Error("two runs have one name")
	}
	wantHad(t, "the run before", s, first, end, true)
	wantHad(t, "what the run before did not come to", s, first, end+1, false)
	create(t, s, entry("b"), entry("c"))
	later := snapshot(t, s).Revision
	wantHad(t, "this run", s, second, later, true)
	var copied bytes.Buffer
	_, err := s.Save(t.Context(), &copied)
	check(t, err)
	check(t, s.Close())

	s = openStore(t, put)
	for _, name := range []string{"x", "y", "z"} {
		create(t, s, entry(name))
	}
	if now := snapshot(t, s).Revision; now < later {
		t.Fatalf("the test is no good: %d < %d", now, later)
	}
	wantHad(t, "put back: what it holds", s, first, end, true)
	wantHad(t, "put back: a run it knows nothing of", s, second, later, false)
	check(t, s.Close())

	restored := filepath.Join(t.TempDir(), "restored")
	check(t, store.Restore(t.Context(), store.RestoreConfig{Dir: restored, TrustDomain: td}, &copied))
	s = openStore(t, restored)
	wantHad(t, "restored", s, first, end, false)
	wantHad(t, "restored", s, second, later, false)
	check(t, s.Close())
}

func TestRunsAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var first, second store.Run
	for i := range 34 {
		s := openStore(t, dir)
		switch i {
		case 0:
			first = s.Run()
		case 2:
			second = s.Run()
		case 33:
			wantHad(t, "the oldest", s, first, 3, false)
			known := false
			for rev := range store.Revision(200) {
				known = known || s.Had(second, rev)
			}
			if !known {
				t.Error("the 31st before this one is forgotten")
			}
		}
		check(t, s.Close())
	}
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, TrustDomain: td})
	check(t, err)
	return s
}

func TestPastTellsWhatWas(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	begin := snapshot(t, s).Revision
	made := create(t, s, entry("web"))
	_, _, err := s.UpdateEntry(t.Context(), made[0].ID, func(e *registration.Entry) error { e.Hint = "x"; return nil })
	check(t, err)
	_, _, err = s.DeleteEntries(t.Context(), []string{made[0].ID})
	check(t, err)
	for _, sequence := range []uint64{1, 2} {
		_, err = s.SetFederatedBundle(t.Context(), &types.Bundle{TrustDomain: "foreign.test", SequenceNumber: sequence}, store.ModeSet)
		check(t, err)
	}
	end := snapshot(t, s).Revision
	create(t, s, entry("later"))

	past := func(upTo store.Revision) (begin store.Revision, told []store.Event) {
		last := store.Revision(0)
		begin, err := s.Past(t.Context(), upTo, func(rev store.Revision, was store.Event) {
			if rev < last || rev > upTo {
				t.Errorf("revision %d after %d", rev, last)
			}
			last = rev
			told = append(told, was)
		})
		check(t, err)
		return begin, told
	}
	from, told := past(end)
	if from != 0 || len(told) != 5 {
		t.Fatalf("from %d: %+v", from, told)
	}
	if !told[0].Deleted || told[1].Deleted || told[1].Entry.Hint != "" || told[2].Entry.Hint != "x" {
		t.Errorf("the entry was %+v", told[:3])
	}
	if !told[3].Deleted || told[4].Bundle.GetSequenceNumber() != 1 || told[4].Kind != store.KindFederatedBundle || told[4].ID != "foreign.test" {
		t.Errorf("the bundle was %+v", told[3:])
	}
	check(t, s.Compact(t.Context(), begin+2))
	from, told = past(end)
	if from != begin+2 || len(told) != 3 {
		t.Errorf("from %d, want %d: %+v", from, begin+2, told)
	}
	if from, told = past(from); from > begin+2 || len(told) != 0 {
		t.Errorf("from %d: %+v", from, told)
	}
}
