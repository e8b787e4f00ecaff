package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// fullDisk is where a disk is full: at what size no file grows any further, and
// how large the entries are that fill it.
type fullDisk struct{ limit, entry int }

// fullDisks are the parts that fullDiskChild plays. etcd's log has its space
// from the start, so what fills up first on most disks is its backend, whose
// writer holds the lock of all reads.
var fullDisks = map[string]fullDisk{
	"full-log":     {limit: 64 << 10},
	"full-backend": {limit: 70 << 20, entry: 400 << 10},
}

// fullDiskChild opens a store, lets no file grow over a limit, and reads and
// writes until the store says why it ended.
func fullDiskChild(full fullDisk, dir string) int {
	// What etcd logs as an error would say the same as the store's one error, in more lines.
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelError}))
	s, err := store.Open(background(), store.Config{Dir: dir, TrustDomain: td, Log: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	limit := uint64(full.limit)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for s.Err() == nil {
				s.UpdateEntry(background(), "absent", func(*registration.Entry) error { return nil })
			}
		})
	}
	for i := 0; ; i++ {
		e := entry(fmt.Sprintf("w%d", i))
		e.Selectors = append(e.Selectors, registration.Selector{Type: "fill", Value: strings.Repeat("x", full.entry+1)})
		results, _, err := s.CreateEntries(background(), []registration.Entry{e})
		if err != nil {
			fmt.Printf("write: %v\n", err)
			break
		}
		fmt.Printf("id: %s\n", results[0].Entry.ID)
	}
	fmt.Printf("done: %v\n", <-s.Done())
	readers.Wait()
	if err := s.Close(); err != nil {
		fmt.Printf("close: %v\n", err)
	}
	return 0
}

func TestFullDiskEndsTheStoreWithOneError(t *testing.T) {
	t.Parallel()
	for part := range fullDisks {
		t.Run(part, func(t *testing.T) {
			testFullDisk(t, part)
		})
	}
}

func testFullDisk(t *testing.T, part string) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := child(ctx, t, part, dir)
	// When its log is full, etcd ends a goroutine whose queue another one of its own may be using: a race, told of by the
	// detector, in what has failed for good by then. What the store does is raced by all the other tests.
	cmd.Env = append(cmd.Env, "GORACE=exitcode=0")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // it shows where it hangs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the child failed: %v\n%s", err, out)
	}
	acknowledged := make(map[string]bool)
	var done, write string
	for line := range strings.Lines(string(out)) {
		what, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch what {
		case "id":
			acknowledged[rest] = true
		case "done":
			done = rest
		case "write":
			write = rest
		default:
			t.Errorf("the child says: %s", line)
		}
	}
	if !strings.Contains(done, "make space and start again") || write != done {
		t.Errorf("Done: %q\nthe write: %q", done, write)
	}
	t.Logf("%d writes, then: %s", len(acknowledged), done)
	s := open(t, dir)
	for _, e := range snapshot(t, s).Entries {
		delete(acknowledged, e.ID)
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged entries are lost", len(acknowledged))
	}
	create(t, s, entry("afterwards"))
}
