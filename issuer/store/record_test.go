package store

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func sample() registration.Entry {
	return registration.Entry{
		ID: "x", SPIFFEID: spiffeid.RequireFromPath(td, "/x"), ParentID: spiffeid.RequireFromPath(td, "/node"),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}, Hint: "h",
	}
}

// What can be read is written back as the same entry, and nothing panics.
func FuzzDecodeEntry(f *testing.F) {
	data, err := encodeEntry(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("x", []byte(data))
	f.Add("y", []byte(data))
	f.Add("", []byte{})
	f.Add("x", []byte(data)[:len(data)/2])
	f.Fuzz(func(t *testing.T, id string, data []byte) {
		e, err := decodeEntry(id, data)
		if err != nil {
			return
		}
		again, err := encodeEntry(e)
		if err != nil {
			if errors.Is(err, ErrTooLarge) {
				return
			}
			t.Fatal(err)
		}
		back, err := decodeEntry(id, []byte(again))
		if err != nil || !cmp.Equal(e, back, cmp.AllowUnexported(spiffeid.ID{}, spiffeid.TrustDomain{})) {
			t.Errorf("%v is read back as %v, %v", e, back, err)
		}
	})
}

func FuzzDecodeOthers(f *testing.F) {
	agent, err := proto.Marshal(&storepb.Agent{SpiffeId: "spiffe://lanyard.test/a", Serial: "1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("spiffe://lanyard.test/a", agent)
	f.Add("lanyard.test", []byte("\x0a\x0clanyard.test"))
	f.Fuzz(func(t *testing.T, id string, data []byte) {
		if a, err := decodeAgent(id, data); err == nil && a.SpiffeId != id {
			t.Errorf("agent %q is read as %q", a.SpiffeId, id)
		}
		if b, err := decodeBundle(td, data); err == nil && b.TrustDomain != td.Name() {
			t.Errorf("the bundle is of %q", b.TrustDomain)
		}
		if a, err := decodeAuthority(id, data); err == nil && a.AuthorityId != id {
			t.Errorf("authority %q is read as %q", a.AuthorityId, id)
		}
	})
}

// lockedLog keeps what is logged.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Records that cannot be read are as if they were not there, are said so, and
// can be deleted.
func TestCorruptRecords(t *testing.T) {
	t.Parallel()
	log := &lockedLog{}
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), TrustDomain: td, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	agent := spiffeid.RequireFromPath(td, "/spire/agent/join_token/t")
	good, err := encodeEntry(sample())
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := s.client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	before, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(entryKey("x"), good)
	put(entryKey("x"), "garbage")
	put(entryKey("y"), good) // another's
	put(agentKey(agent), "garbage")
	put(bundleKey, "garbage")
	put(authorityDir+"z", "garbage")

	var events []Event
	enough := errors.New("enough")
	err = s.Watch(t.Context(), before.Revision, func(b Batch) error {
		events = append(events, b.Events...)
		if b.Revision == before.Revision+6 {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Fatal(err)
	}
	// The bundle and the authorities stay what they were.
	if len(events) != 4 || events[0].Deleted || slices.ContainsFunc(events[1:], func(e Event) bool { return !e.Deleted }) {
		t.Errorf("events: %v", events)
	}
	if _, err := s.Snapshot(t.Context()); err == nil {
		t.Error("a snapshot without its bundle")
	}
	if _, err := s.client.Delete(t.Context(), bundleKey); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Delete(t.Context(), authorityDir+"z"); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(t.Context())
	if err != nil || len(snap.Entries) != 0 || len(snap.Agents) != 0 {
		t.Errorf("snapshot: %v, %v", snap, err)
	}
	for _, key := range []string{entryKey("x"), entryKey("y"), agentKey(agent)} {
		if !strings.Contains(log.String(), key) {
			t.Errorf("the log does not name %s:\n%s", key, log)
		}
	}
	put(aliasesOf(agent)+"x", "")
	put(aliasesOf(agent)+"gone", "")
	if _, err := s.DeleteAgent(t.Context(), agent); err != nil {
		t.Errorf("delete the agent: %v", err)
	}
	results, _, err := s.DeleteEntries(t.Context(), []string{"x", "y"})
	if err != nil || !errors.Is(results[0].Err, ErrNotFound) || results[1].Err != nil {
		t.Errorf("delete: %v, %v", results, err)
	}
}

func TestEtcdLogsThroughSlog(t *testing.T) {
	t.Parallel()
	log := &lockedLog{}
	var failed []string
	hook := &fatalHook{fail: func(msg string, cause error) { failed = append(failed, msg+": "+cause.Error()) }}
	lg := zapLogger(slog.New(slog.NewTextHandler(log, nil)), hook).With(zap.Int("member", 1))

	lg.Info("chatter")
	lg.Warn("disk is slow", zap.String("took", "9s"))
	lg.Error("broken", zap.Error(errors.New("why")))
	hook.stopping.Store(true)
	lg.Warn("cannot do that any more")
	reached := make(chan bool, 1)
	for _, end := range []func(string, ...zap.Field){lg.Fatal, lg.Panic} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			end("cannot go on", zap.Error(errors.New("no space")))
			reached <- true // etcd's code must not go on
		}()
		<-done
	}
	select {
	case <-reached:
		t.Error("the goroutine went on after a fatal message")
	default:
	}
	if !slices.Equal(failed, []string{"cannot go on: no space"}) {
		t.Errorf("failures: %q", failed)
	}
	want := []string{
		`level=WARN msg="etcd: disk is slow"`, `took=9s`, `member=1`,
		`level=ERROR msg="etcd: broken"`, `error=why`,
	}
	text := log.String()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s is not in the log:\n%s", w, text)
		}
	}
	if n := strings.Count(text, "\n"); n != 2 {
		t.Errorf("%d lines in the log, want 2:\n%s", n, text)
	}
}

func TestOpenRefusesABundleThatCannotBeRead(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), TrustDomain: td}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), bundleKey, "garbage"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), cfg.Dir) || !strings.Contains(err.Error(), "bundle") {
		t.Errorf("Open = %v, want that the bundle in %s cannot be read", err, cfg.Dir)
	}
}
