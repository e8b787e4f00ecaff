package telemetry

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReopenGoesOnInANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, closer, err := Open(Config{File: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	log.Info("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log.Info("two")
	if err := closer.(*File).Reopen(); err != nil {
		t.Fatal(err)
	}
	log.Info("three")
	for name, want := range map[string][2]int{path + ".1": {2, 0}, path: {0, 1}} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), "=one") + strings.Count(string(text), "=two"); got != want[0] || strings.Count(string(text), "=three") != want[1] {
			t.Errorf("%s has %q", name, text)
		}
	}
}

func TestReopenKeepsTheOldFileWhereItCant(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(dir, dir+".1"); err != nil {
		t.Fatal(err)
	}
	if f.Reopen() == nil {
		t.Error("reopened in a directory that is gone")
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

func TestVarChangesTheLevel(t *testing.T) {
	var out strings.Builder
	var level slog.LevelVar
	log, _, err := Open(Config{Level: "warn", Var: &level}, &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("one")
	level.Set(slog.LevelInfo)
	log.Info("two")
	if got := out.String(); strings.Contains(got, "one") || !strings.Contains(got, "two") {
		t.Errorf("got %s", got)
	}
}
