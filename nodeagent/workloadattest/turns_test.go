package workloadattest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A program of a terabyte, most of which is a hole, costs its user nothing, and
// reading it takes an hour. Whoever runs some keeps no other user from being
// attested, and not even other programs of the same user.
func TestLongProgramsKeepNobodyWaiting(t *testing.T) {
	cache := newHashCache()
	dir := t.TempDir()
	file := func(name string, size int64) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	ctx, cancel := context.WithCancel(t.Context())
	var long sync.WaitGroup
	defer long.Wait()
	defer cancel()
	for _, name := range []string{"a", "b", "c"} {
		f := file(name, 1<<40)
		long.Go(func() { _, _ = cache.sum(ctx, 1000, f, 0) })
	}
	// A second process that runs one of them, and more that have their own.
	same, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	long.Go(func() { _, _ = cache.sum(ctx, 1002, same, 0) })

	soon, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for _, uid := range []uint32{1001, 1000, 0} {
		if _, err := cache.sum(soon, uid, file("short", slice+1), 0); err != nil {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	cancel()
	long.Wait()
	if len(cache.users) != 0 || len(cache.slots) != 0 {
		t.Errorf("%d users and %d slots are left", len(cache.users), len(cache.slots))
	}
}
