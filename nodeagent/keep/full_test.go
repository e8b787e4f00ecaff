package keep

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk keeps what there was: on a file system of 64 KiB, which root alone
// can make.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("can't mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f, small := Open(dir), state(t)
	if err := f.Save(small); err != nil {
		t.Fatal(err)
	}
	large := state(t)
	entries := slices.Collect(large.Entries)
	entries[0].Hint = strings.Repeat("x", 100<<10)
	large.Entries = slices.Values(entries)
	if err := f.Save(large); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("written to a full disk: %v", err)
	}
	if s, err := f.Load(agent); err != nil || len(s.SVIDs) != len(small.SVIDs) {
		t.Errorf("what was there is gone: %v, %v", s, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if _, err := os.Stat(f.path); err != nil {
		t.Error(err)
	}
}
