package filewatch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// watch runs a watch of path. The channel gets what is in the file at each call, "gone" if it isn't there.
func watch(t *testing.T, path string) <-chan string {
	t.Helper()
	f := New(slog.New(slog.DiscardHandler), path)
	calls := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- f.Run(ctx, func() {
			content, err := os.ReadFile(path)
			if err != nil {
				content = []byte("gone")
			}
			calls <- string(content)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return calls
}

// await waits for a call that finds content; a file may be seen half-written before.
func await(t *testing.T, calls <-chan string, content string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-calls:
			if got == content {
				return
			}
		case <-deadline:
			t.Fatalf("not told of %q", content)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWritesAndRenames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	write(t, path, "1")
	calls := watch(t, path)
	write(t, path, "22")
	await(t, calls, "22")
	write(t, path+".new", "333")
	must(t, os.Rename(path+".new", path))
	await(t, calls, "333")
	must(t, os.Remove(path))
	await(t, calls, "gone")
	write(t, path, "4444")
	await(t, calls, "4444")
}

// Kubernetes writes a new directory and renames a link to it.
func TestSwappedLinks(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"..1", "..2", "..3"} {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "cert.pem"), version)
	}
	must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	path := filepath.Join(dir, "cert.pem")
	must(t, os.Symlink("..data/cert.pem", path))
	calls := watch(t, path)
	for _, version := range []string{"..2", "..3"} {
		must(t, os.Symlink(version, filepath.Join(dir, "..new")))
		must(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
		await(t, calls, version)
	}
	write(t, filepath.Join(dir, "..3", "cert.pem"), "written in place")
	await(t, calls, "written in place")
}

func TestDirectoryThatComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	path := filepath.Join(dir, "b", "cert.pem")
	calls := watch(t, path)
	for _, content := range []string{"1", "22"} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		write(t, path, content)
		await(t, calls, content)
		must(t, os.RemoveAll(dir))
		await(t, calls, "gone")
	}
}

func TestOtherFilesAndWhatChangedBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	write(t, path, "1")
	f := New(slog.New(slog.DiscardHandler), path)
	write(t, path, "22") // after New, before Run
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	// The first call is of the change before; the second must be that of the file, not of another one.
	must(t, f.Run(ctx, func() {
		if calls++; calls == 1 {
			write(t, path+".other", "x")
			write(t, path, "333")
			return
		}
		cancel()
	}))
	if calls != 2 {
		t.Errorf("%d calls, want 2", calls)
	}
}

func TestDirectories(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "real", "sub"), 0o700))
	must(t, os.Symlink("real", filepath.Join(dir, "link")))
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	write(t, filepath.Join(dir, "real", "sub", "f"), "")
	must(t, os.Symlink("../link/sub/f", filepath.Join(dir, "real", "up")))
	at := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, filepath.Join(dir, n))
		}
		return out
	}
	for path, want := range map[string][]string{
		"link/sub/f":  at("", "real/sub"),
		"real/up":     at("", "real", "real/sub"),
		"none/x/y":    at(""),
		"loop":        at(""),
		"real/sub/no": at("real/sub"),
	} {
		if got := directories(at(path)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
