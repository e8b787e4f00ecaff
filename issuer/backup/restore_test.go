package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/backup"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var (
	td      = spiffeid.RequireTrustDomainFromString("example.org")
	agentID = spiffeid.RequireFromString("spiffe://example.org/spire/agent/join_key/1")
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// made is a data directory with an agent, an entry, a token, an authority and its key, and a backup of it.
func made(t *testing.T) (dir string, snap store.Snapshot, data []byte) {
	t.Helper()
	dir = t.TempDir()
	s := openStore(t, dir)
	keys, err := ca.OpenKeys(filepath.Join(dir, "keys.json"))
	must(t, err)
	_, err = keys.Generate(t.Context(), "x509-CA-A", ca.KeyECP256)
	must(t, err)
	_, _, err = s.ImportAgents(t.Context(), []*storepb.Agent{{SpiffeId: agentID.String(), Serial: "42", AttestationType: "join_key"}})
	must(t, err)
	results, _, err := s.CreateEntries(t.Context(), []registration.Entry{{
		SPIFFEID: spiffeid.RequireFromPath(td, "/web"), ParentID: agentID, Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
	}})
	must(t, errors.Join(err, results[0].Err))
	must(t, s.CreateToken(t.Context(), "secret", &storepb.JoinToken{ExpiresAt: time.Now().Add(time.Hour).Unix()}))
	_, err = s.UpdateCA(t.Context(), func(c *store.CAState) error {
		c.Bundle.X509Authorities = []*types.X509Certificate{{Asn1: []byte("root")}}
		return nil
	})
	must(t, err)
	snap, err = s.Snapshot(t.Context())
	must(t, err)
	var out bytes.Buffer
	must(t, backup.Write(t.Context(), &out, backup.Parts{TrustDomain: td, Save: s.Save, KeyFile: filepath.Join(dir, "keys.json"), Version: "1.2.3"}))
	return dir, snap, out.Bytes()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	var all []string
	for _, f := range files {
		all = append(all, f.Name())
	}
	return slices.DeleteFunc(all, func(name string) bool { return name == "lock" })
}

func TestRestoreMakesWhatWasThere(t *testing.T) {
	dir, before, data := made(t)
	for name, keyFile := range map[string]string{"keys in the directory": "", "keys elsewhere": filepath.Join(t.TempDir(), "k.json")} {
		t.Run(name, func(t *testing.T) {
			fresh := filepath.Join(t.TempDir(), "data")
			begin := time.Now()
			done, err := backup.Restore(t.Context(), bytes.NewReader(data), backup.Target{DataDir: fresh, KeyFile: keyFile, TrustDomain: td})
			must(t, err)
			if done.TrustDomain != td || !done.HasKeys || done.Version != "1.2.3" || begin.Sub(done.CreatedAt) > time.Minute {
				t.Errorf("%+v", done)
			}
			s := openStore(t, fresh)
			after, err := s.Snapshot(t.Context())
			must(t, err)
			if diff := cmp.Diff(before.Agents, after.Agents, protocmp.Transform()); diff != "" || len(after.Agents) != 1 {
				t.Errorf("agents: %s", diff)
			}
			if len(after.Entries) != 1 || after.Entries[0].SPIFFEID.Path() != "/web" {
				t.Errorf("entries: %+v", after.Entries)
			}
			if got := after.Bundle.GetSequenceNumber(); got < uint64(begin.Unix()) {
				t.Errorf("sequence number %d: agents of an issuer that went on would not take this bundle", got)
			}
			if restored, err := s.Restored(t.Context()); !restored || err != nil {
				t.Errorf("not marked as restored: %v", err)
			}
			if tokens, err := s.Tokens(t.Context(), begin); err != nil || len(tokens) != 0 {
				t.Errorf("tokens %v, %v", tokens, err)
			}
			if keyFile == "" {
				keyFile = filepath.Join(fresh, "keys.json")
			}
			want, err := os.ReadFile(filepath.Join(dir, "keys.json"))
			must(t, err)
			got, err := os.ReadFile(keyFile)
			info, statErr := os.Stat(keyFile)
			if must(t, errors.Join(err, statErr)); !bytes.Equal(want, got) || info.Mode().Perm() != 0o600 {
				t.Errorf("other keys, or mode %v", info.Mode())
			}
			if err := backup.CheckWhole(fresh); err != nil {
				t.Error(err)
			}
			for _, name := range names(t, fresh) {
				if name != "store" && name != "keys.json" {
					t.Errorf("left over: %s", name)
				}
			}
		})
	}
}

func TestRestoreIsAllOrNothing(t *testing.T) {
	_, _, data := made(t)
	other := spiffeid.RequireTrustDomainFromString("other.test")
	broken := bytes.Clone(data)
	broken[bytes.Index(data, []byte("store/000000"))+512+100] ^= 1
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, try := range map[string]func(dir string) error{
		"cut off":             func(dir string) error { return restore(t.Context(), data[:len(data)/2], dir, td) },
		"changed":             func(dir string) error { return restore(t.Context(), broken, dir, td) },
		"of another domain":   func(dir string) error { return restore(t.Context(), data, dir, other) },
		"cancelled":           func(dir string) error { return restore(cancelled, data, dir, td) },
		"key file in the way": func(dir string) error { return restore(t.Context(), data, dir, td, data2(t, dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := try(dir); err == nil {
				t.Error("restored")
			}
			if left := names(t, dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			must(t, restore(t.Context(), data, dir, td)) // the next try isn't in the way of the last
		})
	}
}

// data2 is a key file that is there already.
func data2(t *testing.T, dir string) string {
	file := filepath.Join(filepath.Dir(dir), "k.json")
	must(t, os.WriteFile(file, []byte("{}"), 0o600))
	return file
}

func restore(ctx context.Context, data []byte, dir string, td spiffeid.TrustDomain, keyFile ...string) error {
	to := backup.Target{DataDir: dir, TrustDomain: td}
	if len(keyFile) > 0 {
		to.KeyFile = keyFile[0]
	}
	_, err := backup.Restore(ctx, bytes.NewReader(data), to)
	return err
}

func TestRestoreTouchesNoDirectoryInUse(t *testing.T) {
	dir, _, data := made(t)
	err := restore(t.Context(), data, dir, td)
	if err == nil || !strings.Contains(err.Error(), "is not empty, it has ") {
		t.Error(err)
	}
	fresh := t.TempDir()
	for _, name := range []string{"lost+found", "lock"} { // as a file system's root, and a directory that an issuer only looked at
		must(t, os.WriteFile(filepath.Join(fresh, name), nil, 0o600))
	}
	must(t, restore(t.Context(), data, fresh, td))
}

// A restore that was killed leaves its mark: no issuer starts on it, and the next restore begins anew.
func TestARestoreThatWasKilledIsRepeated(t *testing.T) {
	_, _, data := made(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "restore.partial", "store"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "keys.json"), []byte("{}"), 0o600))
	if err := backup.CheckWhole(dir); err == nil || !strings.Contains(err.Error(), "a restore into it did not end") {
		t.Error(err)
	}
	must(t, restore(t.Context(), data, dir, td))
	if err := backup.CheckWhole(dir); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"keys.json", "store"}) {
		t.Errorf("left: %q", got)
	}
}
