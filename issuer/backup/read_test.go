package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	td  = spiffeid.RequireTrustDomainFromString("example.org")
	day = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
)

// write makes a backup of records and keys; no keys if keys is nil.
func write(t testing.TB, records, keys []byte) []byte {
	t.Helper()
	p := Parts{TrustDomain: td, Version: "1.2.3", Now: func() time.Time { return day }, Save: func(_ context.Context, w io.Writer) (int64, error) {
		n, err := io.Copy(w, bytes.NewReader(records))
		return n, err
	}}
	if keys != nil {
		p.KeyFile = filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(p.KeyFile, keys, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := Write(t.Context(), &out, p); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadGivesWhatWasWritten(t *testing.T) {
	for name, records := range map[string][]byte{
		"none": {}, "few": []byte("records"), "one piece": bytes.Repeat([]byte("a"), pieceSize), "several": bytes.Repeat([]byte("abc"), pieceSize),
	} {
		for _, keys := range [][]byte{nil, []byte("{}")} {
			var store bytes.Buffer
			c, err := read(t.Context(), bytes.NewReader(write(t, records, keys)), td, &store)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !bytes.Equal(store.Bytes(), records) || !bytes.Equal(c.keys, keys) {
				t.Errorf("%s: other records or keys", name)
			}
			want := Restored{TrustDomain: td, CreatedAt: day, Version: "1.2.3", HasKeys: keys != nil}
			if c.Restored != want {
				t.Errorf("%s: %+v, want %+v", name, c.Restored, want)
			}
		}
	}
}

func TestReadRefusesWhatIsCutOffOrChanged(t *testing.T) {
	whole := write(t, []byte("the records"), []byte(`{"keys":{}}`))
	end := bytes.LastIndex(whole, []byte("manifest.json")) + 512
	for n := 0; n < end; n += 101 {
		if _, err := read(t.Context(), bytes.NewReader(whole[:n]), td, io.Discard); !errors.Is(err, ErrInvalid) {
			t.Errorf("cut off after %d: %v", n, err)
		}
	}
	for _, part := range []string{"the records", `{"keys":{}}`} {
		changed := bytes.Replace(whole, []byte(part), []byte("X"+part[1:]), 1)
		if _, err := read(t.Context(), bytes.NewReader(changed), td, io.Discard); !errors.Is(err, ErrInvalid) {
			t.Errorf("with another %q: %v", part, err)
		}
	}
}

func TestReadRefusesAnotherTrustDomain(t *testing.T) {
	_, err := read(t.Context(), bytes.NewReader(write(t, nil, nil)), spiffeid.RequireTrustDomainFromString("other.test"), io.Discard)
	want := `the backup is of trust domain "example.org", not of "other.test": name that one, or another backup`
	if err == nil || err.Error() != want {
		t.Error(err)
	}
	if _, err := read(t.Context(), bytes.NewReader(write(t, nil, nil)), spiffeid.TrustDomain{}, io.Discard); err != nil {
		t.Error(err)
	}
}

// member is a file in a forged backup.
type member struct {
	h    tar.Header
	data string
}

func forge(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := m.h
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Size == 0 {
			h.Size = int64(len(m.data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	return out.Bytes()
}

const (
	goodHeader   = `{"format":1,"trust_domain":"example.org"}`
	goodManifest = `{"store":{"size":1,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}`
)

func named(name, data string) member { return member{tar.Header{Name: name}, data} }

func TestReadTakesNothingButABackup(t *testing.T) {
	head, piece, end := named("backup.json", goodHeader), named("store/000000", "x"), named("manifest.json", goodManifest)
	if _, err := read(t.Context(), bytes.NewReader(forge(t, head, piece, end)), td, io.Discard); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for name, tc := range map[string]struct {
		members []member
		want    string
	}{
		"path traversal":     {[]member{head, named("../../etc/passwd", "x"), end}, "manifest.json is missing"},
		"absolute path":      {[]member{head, piece, named("/etc/passwd", "x"), end}, "manifest.json is missing"},
		"a link":             {[]member{head, {tar.Header{Name: "store/000000", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""}, end}, "something other than plain files"},
		"a directory":        {[]member{head, {tar.Header{Name: "store/", Typeflag: tar.TypeDir}, ""}, end}, "something other than plain files"},
		"a PAX header":       {[]member{head, {tar.Header{Name: "store/000000", PAXRecords: map[string]string{"comment": "x"}}, "x"}, end}, "something other than plain files"},
		"another order":      {[]member{piece, head, end}, "backup.json is missing"},
		"pieces out of turn": {[]member{head, named("store/000001", "x"), end}, "manifest.json is missing"},
		"something after it": {[]member{head, piece, end, named("more", "x")}, "something after its manifest"},
		"two manifests":      {[]member{head, piece, end, end}, "something after its manifest"},
		"a large piece":      {[]member{head, named("store/000000", strings.Repeat("x", pieceSize+1)), end}, "store/000000 is too large"},
		"large keys":         {[]member{head, piece, named("keys.json", strings.Repeat("x", maxKeys+1)), end}, "keys.json is too large"},
		"a large header":     {[]member{named("backup.json", goodHeader+strings.Repeat(" ", maxJSON))}, "backup.json is too large"},
		"no JSON":            {[]member{named("backup.json", "{")}, "backup.json cannot be read"},
		"another format":     {[]member{named("backup.json", `{"format":2,"lanyard_version":"9.9"}`)}, `the backup has format 2, made by Lanyard "9.9"; this one reads format 1: restore with that version`},
		"no trust domain":    {[]member{named("backup.json", `{"format":1,"trust_domain":"spiffe://example.org/x"}`)}, "its trust domain is none"},
		"other records":      {[]member{head, named("store/000000", "y"), end}, "the records are not those that were written"},
		"keys that were not": {[]member{head, piece, named("keys.json", "{}"), end}, "the keys are not those that were written"},
		"nothing":            {nil, "backup.json is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t.Context(), bytes.NewReader(forge(t, tc.members...)), td, io.Discard)
			if err == nil || !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("got %v, want …%s", err, tc.want)
			}
		})
	}
	for name, r := range map[string]io.Reader{
		"bytes without end": io.MultiReader(bytes.NewReader(forge(t, head, piece, end)), bytes.NewReader(make([]byte, 1024)), zeros{}),
		"no tar":            strings.NewReader(strings.Repeat("no tar", 1000)),
	} {
		if _, err := read(t.Context(), r, td, io.Discard); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := read(ctx, bytes.NewReader(write(t, nil, nil)), td, io.Discard); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

func TestWriteTellsWhatFailed(t *testing.T) {
	boom := errors.New("boom")
	save := func(context.Context, io.Writer) (int64, error) { return 0, nil }
	for name, p := range map[string]Parts{
		"records": {TrustDomain: td, Save: func(context.Context, io.Writer) (int64, error) { return 0, boom }},
		"keys":    {TrustDomain: td, Save: save, KeyFile: filepath.Join(t.TempDir(), "none")},
	} {
		if err := Write(t.Context(), io.Discard, p); err == nil || !strings.HasPrefix(err.Error(), "backup: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Write(t.Context(), failing{}, Parts{TrustDomain: td, Save: save}); err == nil || !cmp.Equal(err.Error(), "backup: disk full") {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func FuzzRead(f *testing.F) {
	f.Add(write(f, []byte("records"), []byte("{}")))
	f.Add(forge(f, named("backup.json", goodHeader), named("store/000000", "x"), named("manifest.json", goodManifest)))
	f.Add(forge(f, member{tar.Header{Name: "backup.json", PAXRecords: map[string]string{"comment": "x"}}, goodHeader}))
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var store bytes.Buffer
		c, err := read(t.Context(), bytes.NewReader(data), spiffeid.TrustDomain{}, &store)
		if err != nil {
			return
		}
		if c.TrustDomain.IsZero() || int64(store.Len()) > maxStore || len(c.keys) > maxKeys {
			t.Errorf("taken: %+v", c.Restored)
		}
	})
}
