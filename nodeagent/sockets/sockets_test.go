package sockets

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

func TestSocketsAreServedAndRemoved(t *testing.T) {
	cfg := setup(t, "workload", "admin")
	cfg.Specs[1].Mode = 0o600
	a := start(t, "one", cfg, nil)
	for _, spec := range cfg.Specs {
		wantAnswer(t, spec.Path, "one")
		if info, err := os.Stat(spec.Path); err != nil || info.Mode().Perm() != spec.Mode {
			t.Errorf("%s: mode %v, %v", spec.Path, info, err)
		}
	}
	if a.set.Listener("other") != nil {
		t.Error("a listener that is not configured")
	}
	a.stop()
	if err := a.ended(t); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cfg.Specs[0].Path, cfg.Specs[1].Path, filepath.Join(cfg.DataDir, handOverFile)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stayed: %v", path, err)
		}
	}
}

func TestCloseKeepsFilesWhenAsked(t *testing.T) {
	cfg := setup(t, "workload")
	set, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(cfg.Specs[0].Path); err != nil {
		t.Error(err)
	}
}

// A file that another process put at the path is not removed at the end.
func TestCloseLeavesTheFileOfAnother(t *testing.T) {
	cfg := setup(t, "workload")
	path := cfg.Specs[0].Path
	set, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := set.Close(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestOpenIsAllOrNothing(t *testing.T) {
	cfg := setup(t, "workload", "admin")
	if err := os.MkdirAll(cfg.Specs[1].Path, 0o700); err != nil { // a directory where a socket should be
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Fatalf("error %v", err)
	}
	if _, err := os.Lstat(cfg.Specs[0].Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first socket stayed: %v", err)
	}
}

func TestSpecsAreChecked(t *testing.T) {
	tests := map[string][]Spec{
		"printable":           {{Name: "a:b", Path: "/p"}},
		"1 to 255":            {{Path: "/p"}},
		"two sockets":         {{Name: "a", Path: "/p"}, {Name: "a", Path: "/q"}},
		`socket "a" has no`:   {{Name: "a"}},
		"printable character": {{Name: "a\n", Path: "/p"}},
	}
	for want, specs := range tests {
		if _, err := Open(t.Context(), Config{Specs: specs}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", specs, err, want)
		}
	}
}

// Somebody removes the file, or its whole directory, or puts another file there.
// The old file may be bind-mounted, for which a second link to it stands here: it
// answers as before.
func TestDeletedSocketIsBoundAnew(t *testing.T) {
	tests := map[string]func(path string) error{
		"removed":           os.Remove,
		"directory removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"directory moved":   func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old") },
		"left by a dead process": func(path string) error {
			return errors.Join(os.Remove(path), func() error {
				l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				if err != nil {
					return err
				}
				l.SetUnlinkOnClose(false)
				return l.Close()
			}())
		},
	}
	for name, remove := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := setup(t, "workload")
			path := cfg.Specs[0].Path
			a := start(t, "one", cfg, nil)
			mounted := filepath.Join(cfg.DataDir, "mounted")
			if err := os.Link(path, mounted); err != nil {
				t.Fatal(err)
			}
			was := a.set.sockets["workload"].all()[0].file
			if err := remove(path); err != nil {
				t.Fatal(err)
			}
			eventually(t, "bound anew", func() bool {
				now, err := fileAt(path)
				return err == nil && now != was && len(a.set.sockets["workload"].all()) == 2
			})
			wantAnswer(t, path, "one")
			wantAnswer(t, mounted, "one")
			wantAnswer(t, path, "one")
		})
	}
}

// A live socket of another process is left alone; the agent goes on where it is,
// and comes back when the other is gone.
func TestSocketReplacedByALiveOneIsLeft(t *testing.T) {
	cfg := setup(t, "workload")
	path := cfg.Specs[0].Path
	a := start(t, "one", cfg, nil)
	mounted := filepath.Join(cfg.DataDir, "mounted")
	if err := errors.Join(os.Link(path, mounted), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Skipf("the agent was faster: %v", err)
	}
	theirs, err := fileAt(path)
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, mounted, "one")
	if now, err := fileAt(path); err != nil || now != theirs {
		t.Errorf("the other's file is gone: %v", err)
	}
	other.Close()
	eventually(t, "bound anew", func() bool { got, err := ask(path); return err == nil && got == "one" })
	a.stop()
	if err := a.ended(t); err != nil {
		t.Error(err)
	}
}

// At most so many former sockets are kept, however often the file is removed.
func TestFormerSocketsAreBounded(t *testing.T) {
	cfg := setup(t, "workload")
	path := cfg.Specs[0].Path
	a := start(t, "one", cfg, nil)
	sock := a.set.sockets["workload"]
	for range 2 * maxFormer {
		was := sock.all()[0].file
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		eventually(t, "bound anew", func() bool { return sock.all()[0].file != was })
	}
	wantAnswer(t, path, "one")
	if n := len(sock.all()); n != 1+maxFormer {
		t.Errorf("%d sockets are open, want %d", n, 1+maxFormer)
	}
}

func TestSecondAgentOnADataDirIsRefused(t *testing.T) {
	cfg := setup(t, "workload")
	start(t, "one", cfg, nil)
	second := cfg
	second.Specs = setup(t, "workload").Specs
	set, err := Open(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	err = set.Run(t.Context(), nil)
	if !errors.Is(err, durable.ErrLocked) {
		t.Errorf("error %v", err)
	}
	if err := set.Close(false); err != nil {
		t.Error(err)
	}
	wantAnswer(t, cfg.Specs[0].Path, "one")
}
