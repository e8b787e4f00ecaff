package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// TestDamagedFilesAreOneError: whatever is wrong with etcd's files, Open says that they are damaged and what to do. It neither
// panics, as etcd does, nor waits for ever, nor says the same in other words before.
func TestDamagedFilesAreOneError(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]struct {
		files string
		with  func(t *testing.T, path string)
	}{
		"log of garbage": {"wal/*.wal", func(t *testing.T, path string) {
			check(t, os.WriteFile(path, bytes.Repeat([]byte("garbage"), 1000), 0o600))
		}},
		"log without its end": {"wal/*.wal", func(t *testing.T, path string) { check(t, os.Truncate(path, 100)) }},
		"no log":              {"wal/*.wal", func(t *testing.T, path string) { check(t, os.Remove(path)) }},
		"records of garbage": {"snap/db", func(t *testing.T, path string) {
			check(t, os.WriteFile(path, bytes.Repeat([]byte("garbage"), 1000), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			cfg := Config{
				Dir: t.TempDir(), TrustDomain: spiffeid.RequireTrustDomainFromString("example.org"),
				Log: slog.New(slog.NewTextHandler(&log, nil)), patience: time.Second,
			}
			s, err := Open(context.Background(), cfg)
			check(t, err)
			check(t, s.Close())
			paths, err := filepath.Glob(filepath.Join(cfg.Dir, liveDir, "member", damage.files))
			if err != nil || len(paths) == 0 {
				t.Fatalf("no %s in %s, %v", damage.files, cfg.Dir, err)
			}
			for _, path := range paths {
				damage.with(t, path)
			}
			s, err = Open(context.Background(), cfg)
			if err == nil {
				s.Close()
				t.Fatal("it opened")
			}
			if text := err.Error(); !errors.Is(err, errDamaged) || !strings.HasPrefix(text, "store: ") || !strings.Contains(text, cfg.Dir) ||
				!strings.Contains(text, "restore a backup") || strings.Contains(text, "\n") {
				t.Errorf("%v", err)
			}
			if strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "failed to publish") {
				t.Errorf("log:\n%s", &log)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
