package keep

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

var agent = spiffeid.RequireFromString("spiffe://example.org/spire/agent/a")

func state(t testing.TB) *State {
	own, old, other := testca.New(t, "example.org"), testca.New(t, "example.org"), testca.New(t, "other.org")
	bundle := own.Bundle()
	bundle.AddX509Authority(old.Cert)
	now := time.Now().Truncate(time.Second)
	entries := []registration.Entry{
		{
			ID: "plain", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/a"), ParentID: agent,
			Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}}, CreatedAt: time.Unix(1000, 0).UTC(),
		},
		{
			ID: "rich", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/b"), ParentID: agent,
			Selectors:   []registration.Selector{{Type: "docker", Value: "label:a:b"}, {Type: "unix", Value: "uid:1"}},
			X509SVIDTTL: time.Minute, JWTSVIDTTL: time.Second, FederatesWith: []spiffeid.TrustDomain{other.TrustDomain},
			Admin: true, Downstream: true, ExpiresAt: time.Unix(5000000000, 0).UTC(), DNSNames: []string{"b.test"},
			Revision: 4, CreatedAt: time.Unix(2000, 0).UTC(), Hint: "h", DisableX509SVIDPrefetch: true, JWTSVIDIncludeJTI: true,
		},
	}
	return &State{
		Agent: agent, Saved: now, Entries: slices.Values(entries),
		Bundle: bundle, Tainted: []*x509.Certificate{old.Cert},
		Federated: map[spiffeid.TrustDomain]*x509bundle.Bundle{other.TrustDomain: other.Bundle()},
		JWT: map[spiffeid.TrustDomain]*jwtsvid.Bundle{
			own.TrustDomain: jwttest.New(t, "example.org", "k1").Bundle(), other.TrustDomain: jwttest.New(t, "other.org", "k2").Bundle(),
		},
		SVIDs: []SVID{
			{EntryID: "plain", Chain: own.Cert.Raw, Key: []byte("secret"), RotateAt: now.Add(time.Minute), NotAfter: now.Add(time.Hour)},
			{EntryID: "rich", Chain: old.Cert.Raw, Key: []byte("secret too"), RotateAt: now.Add(time.Minute), NotAfter: now.Add(2 * time.Hour)},
		},
	}
}

// compare is how two states are: iterators by what they yield, keys and times by
// Equal.
func compare() cmp.Options {
	return cmp.Options{
		cmpopts.EquateEmpty(),
		cmp.Transformer("entries", func(s *State) any {
			type flat struct {
				Agent     spiffeid.ID
				Saved     time.Time
				Entries   []registration.Entry
				Bundle    *x509bundle.Bundle
				Federated map[spiffeid.TrustDomain]*x509bundle.Bundle
				JWT       map[spiffeid.TrustDomain]*jwtsvid.Bundle
				Tainted   []*x509.Certificate
				SVIDs     []SVID
			}
			return flat{s.Agent, s.Saved, slices.Collect(s.Entries), s.Bundle, s.Federated, s.JWT, s.Tainted, s.SVIDs}
		}),
		cmp.Comparer(func(a, b spiffeid.ID) bool { return a == b }),
		cmp.Comparer(func(a, b spiffeid.TrustDomain) bool { return a == b }),
	}
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	f := Open(t.TempDir())
	if s, err := f.Load(agent); s != nil || err != nil {
		t.Fatalf("nothing was kept: %v, %v", s, err)
	}
	want := state(t)
	if err := f.Save(want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := f.Load(agent)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compare()); diff != "" {
		t.Error(diff)
	}
}

func TestExpiredSVIDsAreLeftOut(t *testing.T) {
	f, s := Open(t.TempDir()), state(t)
	if err := f.Save(s); err != nil {
		t.Fatal(err)
	}
	got, err := f.load(agent, s.Saved.Add(90*time.Minute))
	if err != nil || len(got.SVIDs) != 1 || got.SVIDs[0].EntryID != "rich" {
		t.Errorf("read later: %v, %v", got.SVIDs, err)
	}
	s.Saved = s.Saved.Add(90 * time.Minute)
	if err := f.Save(s); err != nil {
		t.Fatal(err)
	}
	if got, err = f.Load(agent); err != nil || len(got.SVIDs) != 1 {
		t.Errorf("written later: %v, %v", got.SVIDs, err)
	}
}

// TestDamageIsFound cuts the file everywhere and changes bytes everywhere: none of
// it is ever taken for what was kept, and the agent can begin anew.
func TestDamageIsFound(t *testing.T) {
	data, err := state(t).encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if _, err := decode(data[:i]); err == nil {
			t.Fatalf("cut to %d of %d bytes, and not noticed", i, len(data))
		}
		changed := bytes.Clone(data)
		changed[i] ^= 0x10
		if _, err := decode(changed); err == nil {
			t.Fatalf("byte %d changed, and not noticed", i)
		}
	}
	if _, err := decode(append(data, 0)); err == nil {
		t.Error("a byte too many, and not noticed")
	}
	f := Open(t.TempDir())
	write(t, f.path, data[:len(data)/2], 0o600)
	if s, err := f.Load(agent); s != nil || err == nil || !strings.Contains(err.Error(), f.path+damagedSuffix) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := os.Stat(f.path + damagedSuffix); err != nil {
		t.Error(err)
	}
	if s, err := f.Load(agent); s != nil || err != nil {
		t.Errorf("the next start: %v, %v", s, err)
	}
}

func TestWhatIsNotUsed(t *testing.T) {
	good, err := state(t).encode()
	if err != nil {
		t.Fatal(err)
	}
	later := bytes.Clone(good)
	later[len(magic)] = version + 1
	for name, c := range map[string]struct {
		make func(path string)
		want string
	}{
		"another agent's": {func(path string) {
			s := state(t)
			s.Agent = spiffeid.RequireFromString("spiffe://example.org/spire/agent/b")
			if err := Open(filepath.Dir(path)).Save(s); err != nil {
				t.Fatal(err)
			}
		}, "spiffe://example.org/spire/agent/b"},
		"a later version's": {func(path string) { write(t, path, later, 0o600) }, "format 2"},
		"readable":          {func(path string) { write(t, path, good, 0o640) }, "mode 0640"},
		"writable":          {func(path string) { write(t, path, good, 0o602) }, "mode 0602"},
		"a link": {func(path string) {
			write(t, path+".real", good, 0o600)
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, "too many levels of symbolic links"},
		"a directory": {func(path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"another user's": {func(path string) {
			write(t, path, good, 0o600)
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip("needs root: ", err)
			}
		}, "belongs to uid 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			f := Open(t.TempDir())
			c.make(f.path)
			s, err := f.Load(agent)
			if s != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, %v; want an error with %q", s, err, c.want)
			}
			if _, err := os.Lstat(f.path); err != nil {
				t.Errorf("it was not left there: %v", err)
			}
		})
	}
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, data, mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// A writer that was killed leaves no keys behind.
func TestLeftoversAreRemoved(t *testing.T) {
	f := Open(t.TempDir())
	left := filepath.Join(filepath.Dir(f.path), "."+Name+".123.tmp")
	write(t, left, []byte("secret"), 0o600)
	if _, err := f.Load(agent); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", left)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "svid", state(t).SVIDs[0])
	if strings.Contains(out.String(), "secret") || !strings.Contains(out.String(), "plain") {
		t.Error(out.String())
	}
}

// FuzzDecode looks for input that is not understood as it was meant: the checksum
// is mended, for no fuzzer finds one.
func FuzzDecode(f *testing.F) {
	s := state(f)
	// What differs from run to run, and is others' to parse, is left out.
	s.Saved, s.Bundle, s.Federated, s.JWT, s.Tainted = time.Unix(1, 0), nil, nil, nil, nil
	s.SVIDs = []SVID{{EntryID: "plain", Chain: []byte("chain"), Key: []byte("key"), RotateAt: time.Unix(2, 0), NotAfter: time.Unix(3, 0)}}
	data, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1-4-sha256.Size])
	f.Add(append([]byte(magic), version))
	f.Add(appendFrame(append([]byte(magic), version), kindHead, appendText(nil, headAgent, agent.String())))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decode(data); err == nil && !bytes.HasPrefix(data, []byte(magic)) {
			t.Error("anything goes")
		}
		sum := sha256.Sum256(data)
		s, err := decode(appendFrame(bytes.Clone(data), kindSum, sum[:]))
		if err != nil {
			return
		}
		s.Saved = time.Unix(0, 0) // so that no SVID has expired
		s.SVIDs = slices.DeleteFunc(s.SVIDs, func(one SVID) bool { return !s.Saved.Before(one.NotAfter) })
		again, err := s.encode()
		if err != nil {
			return // a key of no kind that we'd write
		}
		got, err := decode(again)
		if err != nil {
			t.Fatalf("what was read can't be read again: %v", err)
		}
		if len(got.SVIDs) != len(s.SVIDs) || got.Agent != s.Agent || len(slices.Collect(got.Entries)) != len(slices.Collect(s.Entries)) {
			t.Error("what was read is not the same when read again")
		}
	})
}
