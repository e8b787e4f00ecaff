package container

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// fixtures are /proc/PID/cgroup of many systems, each with what it says: ID, pod
// and runtime, "none" or "error: …". Those called recorded were read here; the
// others are what runtimes write elsewhere, with other names.
func fixtures(t testing.TB) map[string][2]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no fixtures", err)
	}
	all := make(map[string][2]string)
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil || len(archive.Files) != 2 {
			t.Fatal(path, err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".txtar")] = [2]string{
			string(archive.Files[0].Data), strings.TrimSpace(string(archive.Files[1].Data)),
		}
	}
	return all
}

func describe(c Container, ok bool, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	if !ok {
		return "none"
	}
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return c.ID + " " + dash(c.PodUID) + " " + dash(c.Runtime)
}

func TestFindsWhatRealSystemsWrite(t *testing.T) {
	for name, fixture := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			c, ok, err := Find([]byte(fixture[0]))
			got, want := describe(c, ok, err), fixture[1]
			if reason, refused := strings.CutPrefix(want, "error: "); refused {
				if err == nil || !strings.Contains(got, reason) {
					t.Errorf("%s, want an error with %q", got, reason)
				}
				return
			}
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if ok && (!strings.Contains(fixture[0], c.Path) || !strings.Contains(c.Path[strings.LastIndexByte(c.Path, '/'):], c.ID)) {
				t.Errorf("path %s", c.Path)
			}
		})
	}
}

func TestMatchers(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for name, test := range map[string]struct {
		patterns []string
		path     string
		want     string
	}{
		"plain":         {[]string{"/docker/<id>"}, "/docker/" + id, id},
		"any":           {[]string{"/docker/<id>", "/my.slice/*/<id>/*"}, "/my.slice/x/" + id + "/y", id},
		"not below":     {[]string{"/docker/<id>"}, "/docker/" + id + "/init.scope", ""},
		"another":       {[]string{"/docker/<id>"}, "/podman/" + id, ""},
		"no ID":         {[]string{"/docker/<id>"}, "/docker/web", ""},
		"literal":       {[]string{"/a.c/<id>"}, "/abc/" + id, ""},
		"known layouts": {nil, "/docker/" + id, id},
	} {
		f, err := NewFinder(test.patterns)
		if err != nil {
			t.Fatal(err)
		}
		if c, _, err := f.Find([]byte("0::" + test.path + "\n")); err != nil || c.ID != test.want {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for want, patterns := range map[string][]string{
		"want a path with one <id>":   {"/docker"},
		"such as /docker/<id>":        {"docker/<id>"},
		"one <id>":                    {"/<id>/<id>"},
		"must be a whole component":   {"/docker-<id>.scope"},
		"can match the same path":     {"/a/b/<id>", "/*/b/<id>"},
		"\"/a/<id>\" and \"/<id>/b\"": {"/a/<id>", "/<id>/b"},
	} {
		if _, err := NewFinder(patterns); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", patterns, err, want)
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, fixture := range fixtures(f) {
		f.Add([]byte(fixture[0]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, ok, err := Find(data)
		if !ok || err != nil {
			return
		}
		if len(c.ID) != 64 || strings.Trim(c.ID, "0123456789abcdef") != "" || c.PodUID != "" && !isUID(c.PodUID) {
			t.Fatalf("found %+v", c)
		}
		if root, ok := upToID(c.Path, c.ID); !ok || root != c.Path {
			t.Errorf("path %q is not up to the ID", c.Path)
		}
		// A line that names another container makes it an error, never the other.
		other := strings.Repeat("f0", 32)
		again, ok, err := Find(append(append(data[:len(data):len(data)], '\n'), "7:x:/docker/"+other+"\n"...))
		if err == nil && ok && again.ID == other && c.ID != other {
			t.Errorf("a line more turned %s into %s", c.ID, other)
		}
	})
}
