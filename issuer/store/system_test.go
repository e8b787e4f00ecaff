package store_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// childEnv names the part of a child that the test binary plays.
const childEnv = "LANYARD_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch part := os.Getenv(childEnv); part {
	case "":
		os.Exit(m.Run())
	case "writer":
		os.Exit(writerChild(os.Args[1]))
	case "starter":
		os.Exit(starterChild(os.Args[1]))
	default:
		os.Exit(fullDiskChild(fullDisks[part], os.Args[1]))
	}
}

func child(ctx context.Context, t *testing.T, part, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, dir)
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stderr = t.Output()
	return cmd
}

// sockets returns the inodes of the sockets that this process has open, with
// what the kernel's tables say of each.
func sockets(t *testing.T) map[string]string {
	t.Helper()
	tables := make(map[string]string)
	for _, table := range []string{"unix", "tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile("/proc/self/net/" + table)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			for _, field := range strings.Fields(line) {
				tables[field] = table + ": " + strings.TrimSpace(line)
			}
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := make(map[string]string)
	for _, fd := range fds {
		link, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue // the one that listed the directory
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			inode = strings.TrimSuffix(inode, "]")
			open[inode] = tables[inode]
		}
	}
	return open
}

func TestLoneMemberOpensNoSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	before := sockets(t)
	s := open(t, t.TempDir())
	create(t, s, entry("web"))
	for inode, what := range sockets(t) {
		if _, ok := before[inode]; !ok {
			t.Errorf("a socket was opened: %s", what)
		}
	}
	// And by name, for those that belong to no file descriptor any more.
	data, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "etcd") {
		t.Errorf("etcd has a UNIX socket:\n%s", data)
	}
}

// writerChild writes entries one after another and prints the ID of each when
// it is acknowledged, until it is killed.
func writerChild(dir string) int {
	s, err := store.Open(background(), store.Config{Dir: dir, TrustDomain: td})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	out := json.NewEncoder(os.Stdout)
	for i := 0; ; i++ {
		results, _, err := s.CreateEntries(background(), []registration.Entry{
			entry(fmt.Sprintf("%d-%d", os.Getpid(), i)), entry(fmt.Sprintf("%d-%d-b", os.Getpid(), i)),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, r := range results {
			if err := out.Encode(r.Entry.ID); err != nil {
				return 1
			}
		}
	}
}

func TestKilledStoreKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make(map[string]bool)
	for round := range 3 {
		cmd := child(t.Context(), t, "writer", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 50*(round+1) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var id string
			if err := json.Unmarshal(lines.Bytes(), &id); err == nil {
				acknowledged[id] = true
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
	}
	if len(acknowledged) < 300 {
		t.Fatalf("only %d writes were acknowledged", len(acknowledged))
	}
	names := make(map[string]int)
	for _, e := range snapshot(t, open(t, dir)).Entries {
		delete(acknowledged, e.ID)
		names[strings.TrimSuffix(e.SPIFFEID.Path(), "-b")]++
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged entries are lost", len(acknowledged))
	}
	for name, n := range names {
		if n != 2 {
			t.Errorf("half a transaction of %s survived", name)
		}
	}
}

// starterChild opens a store and says so; it is killed at some moment before.
func starterChild(dir string) int {
	fmt.Println("opening")
	if _, err := store.Open(background(), store.Config{Dir: dir, TrustDomain: td}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("open")
	select {}
}

// An etcd that is killed in its first moments never elects a leader again.
func TestStoreKilledInItsFirstStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	for _, seen := range []string{"lock", "etcd.new", "etcd.new/member/wal", "etcd.new/member/snap/db", "etcd"} {
		cmd := child(t.Context(), t, "starter", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, seen)); err == nil {
				break
			}
			runtime.Gosched()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
	}
	create(t, open(t, dir), entry("web"))
}

// background is for children, which have no test to end them.
func background() context.Context { return context.Background() }
