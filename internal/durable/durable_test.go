package durable_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	for _, content := range []string{"first", "second, longer", "3"} {
		if err := durable.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	wantOnly(t, dir, "key.pem")
}

func TestWriteFileFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	// A directory in the way: the rename must fail.
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := durable.WriteFile(path, []byte("secret"), 0o600)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name %s", err, path)
	}
	wantOnly(t, dir, "taken")
}

func TestSweepRemovesWhatKilledWritersLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	// What a writer has at the moment before its rename.
	if err := os.WriteFile(filepath.Join(dir, ".key.pem.123.tmp"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := []string{".key.pem.d.tmp", ".other.1.tmp", "key.pem", "key.pem.1.tmp"}
	if err := os.Mkdir(filepath.Join(dir, kept[0]), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range kept[1:] {
		if err := durable.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(path); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, kept) {
		t.Errorf("directory holds %q, want %q", names, kept)
	}
}

func wantOnly(t *testing.T, dir, name string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != name {
		t.Errorf("directory holds %v, %v; want %s alone", files, err, name)
	}
}

func TestMkdirPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.MkdirPrivate(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm()&0o055 != 0o055 {
		t.Errorf("parent has mode %v, %v: others' sockets below it can't be reached", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
	// One that was there may be in use by others.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirPrivate(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want it left at 0755", info.Mode(), err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirPrivate(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file in the way: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirPrivate(dir); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("a directory everyone can write to: %v", err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if os.Getenv("LOCK_PATH") != "" {
		holdLock(t)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLock$")
	child.Env = append(os.Environ(), "LOCK_PATH="+path)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "locked\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	_, err = durable.Lock(path)
	if want := fmt.Sprintf("(pid %d)", child.Process.Pid); !errors.Is(err, durable.ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one that names %s", err, want)
	}
	// The lock ends with its process, however that ends.
	child.Process.Kill()
	child.Wait()
	stdin.Close()
	unlock, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

// holdLock is the child process of TestLock.
func holdLock(t *testing.T) {
	unlock, err := durable.Lock(os.Getenv("LOCK_PATH"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	fmt.Println("locked")
	bufio.NewReader(os.Stdin).ReadString('\n')
}
