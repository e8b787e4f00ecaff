package crash

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// writes are the system calls that put something onto the disk.
const writes = "pwrite64,fdatasync,fsync,rename,renameat,renameat2"

// points is how many places the issuer is killed at.
func points() int {
	if os.Getenv("LANYARD_SOAK") != "" {
		return 500
	}
	return 20
}

func binaries(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("LANYARD_BIN")
	if bin == "" {
		t.Skip("$LANYARD_BIN names no binaries: make test builds them")
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace here: make test installs it where it can")
	}
	if out, err := exec.Command("strace", "-f", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v: %s", err, strings.TrimSpace(string(out)))
	}
	return bin
}

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCrashAtEveryWrite kills the issuer at the Nth write of a thread, N = 1, 2, 3 and so on, the first of them while it
// starts for the first time, and sees that it starts again with all that it has acknowledged.
func TestCrashAtEveryWrite(t *testing.T) {
	bin := binaries(t)
	var killed, ran, calls atomic.Int32
	t.Run("at", func(t *testing.T) {
		for _, at := range places(points()) {
			t.Run(fmt.Sprintf("write %d", at), func(t *testing.T) {
				t.Parallel()
				d, died := crashAt(t, bin, at)
				ran.Add(1)
				calls.Add(int32(d.calls))
				if died {
					killed.Add(1)
				}
			})
		}
	})
	t.Logf("killed at %d of %d places, with %d calls acknowledged", killed.Load(), ran.Load(), calls.Load())
	if !t.Failed() && killed.Load() < ran.Load()*3/4 {
		t.Errorf("killed at %d of %d places only: the calls are too few", killed.Load(), ran.Load())
	}
}

// places are n numbers, close to each other at first: starting is where most is written that is different.
func places(n int) []int {
	at := make([]int, n)
	for i := range at {
		at[i] = i + 1
	}
	if n < 100 { // a sample of as far as the calls of one run get
		for i := range at {
			at[i] = 1 + i + i*i/6
		}
	}
	return at
}

func crashAt(t *testing.T, bin string, at int) (_ *diary, killed bool) {
	p, err := newPlace(shortDir(t), bin)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := newDiary()
	inject := fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", writes, at)
	r, err := p.start(ctx, p.command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+writes, "-e", inject)) // --seccomp-bpf counts wrong
	must(t, err)
	if r.admin != nil {
		err := d.write(ctx, r.admin, p.addr, 12+at/2)
		killed = err != nil
		if err == nil {
			t.Logf("all calls were answered")
		}
	} else {
		killed = true
	}
	// The signal went to the issuer alone, whose end ends strace; else both are ended here.
	endTraced(t, r)
	again, err := p.start(ctx, p.command())
	must(t, err)
	if again.admin == nil {
		t.Fatalf("the issuer does not start again:\n%s", again.Log.Tail(20))
	}
	defer again.end()
	if err := d.check(ctx, again.admin, p.addr); err != nil {
		t.Errorf("after %d calls, with %q under way: %v", d.calls, d.underway, err)
	}
	// It works on: the next rotation, join and entry are as good as the first.
	if err := d.continues(ctx, again, p); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	return d, killed
}

// continues makes one more round of calls, under names that no other round has.
func (d *diary) continues(ctx context.Context, r *running, p *place) error {
	const n = 1001
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { return d.create(ctx, r.admin, p.addr, n) },
		func(ctx context.Context) error { return d.join(ctx, r.admin, p.addr, n) },
		func(ctx context.Context) error { return d.rotate(ctx, r.admin, p.addr, n) },
	} {
		if err := call(ctx); err != nil {
			return err
		}
	}
	return nil
}

// endTraced ends the issuer below strace, and strace.
func endTraced(t *testing.T, r *running) {
	t.Helper()
	// Of a strace that is gone there are none.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.PID(), r.PID()))
	if err == nil {
		for _, pid := range strings.Fields(string(children)) {
			_ = exec.Command("kill", "-KILL", pid).Run() // it may be gone
		}
	}
	r.end()
}

var (
	walWrite = regexp.MustCompile(`(write|pwrite64)\(\d+<[^>]*\.wal>, .*crash-sync`)
	walSync  = regexp.MustCompile(`fdatasync\(\d+<[^>]*\.wal>\)? .*= 0|fdatasync\(\d+<[^>]*\.wal>\)\s+= 0|fdatasync resumed>\)\s+= 0`)
	answer   = regexp.MustCompile(`(write|writev|sendmsg)\(\d+<(UNIX|unix|socket)[^>]*>, .*crash-sync`)
)

// TestCrashAcknowledgesAfterTheSync reads in a trace of the system calls that an entry is in the log, and the log on the disk,
// before the answer that says so is written.
func TestCrashAcknowledgesAfterTheSync(t *testing.T) {
	bin := binaries(t)
	p, err := newPlace(shortDir(t), bin)
	must(t, err)
	trace := filepath.Join(p.dir, "trace")
	r, err := p.start(t.Context(), p.command("strace", "-f", "-y", "-s", "4096", "-o", trace, "--seccomp-bpf",
		"-e", "trace=write,writev,sendmsg,pwrite64,fdatasync"))
	must(t, err)
	if r.admin == nil {
		t.Fatalf("the issuer ended:\n%s", r.Log.Tail(20))
	}
	_, err = entryv1.NewEntryClient(r.admin).BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry("crash-sync", "")}})
	endTraced(t, r)
	must(t, err)
	text, err := os.ReadFile(trace)
	must(t, err)
	written, synced, answered := -1, -1, -1
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case written < 0 && walWrite.MatchString(line):
			written = i
		case written >= 0 && synced < 0 && walSync.MatchString(line):
			synced = i
		case answered < 0 && answer.MatchString(line):
			answered = i
		}
	}
	if written < 0 || synced < written || answered < synced {
		t.Errorf("lines of the trace: written into the log %d, synced %d, answered %d: want that order", written, synced, answered)
	}
}

// TestCrashReadOnlyDirectory starts on a directory that can't be written: one clear line, and nothing is changed.
func TestCrashReadOnlyDirectory(t *testing.T) {
	bin := os.Getenv("LANYARD_BIN")
	if bin == "" {
		t.Skip("$LANYARD_BIN names no binaries: make test builds them")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount of its own")
	}
	p, err := newPlace(shortDir(t), bin)
	must(t, err)
	first, err := p.start(t.Context(), p.command())
	must(t, err)
	if first.admin == nil {
		t.Fatalf("the issuer ended:\n%s", first.Log.Tail(20))
	}
	d := newDiary()
	must(t, d.write(t.Context(), first.admin, p.addr, 1))
	must(t, first.Stop(20*time.Second))
	before := listing(t, p.data())
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" run -config "$3"`,
		"sh", p.data(), filepath.Join(bin, "lanyard-issuer"), p.conf())
	r, err := p.start(t.Context(), cmd)
	must(t, err)
	if r.admin != nil {
		r.end()
		t.Fatal("the issuer runs on a directory that can't be written")
	}
	lines := r.Log.Lines()
	if len(lines) != 1 || !strings.Contains(lines[0], p.data()) || !strings.Contains(lines[0], "read-only") {
		t.Errorf("want one line that names %s and says that it is read-only, got:\n%s", p.data(), r.Log.Tail(20))
	}
	if after := listing(t, p.data()); after != before {
		t.Errorf("files before and after:\n%s\n%s", before, after)
	}
	again, err := p.start(t.Context(), p.command())
	must(t, err)
	defer again.end()
	if again.admin == nil {
		t.Fatalf("the issuer does not start again:\n%s", again.Log.Tail(20))
	}
	must(t, d.check(t.Context(), again.admin, p.addr))
}

// listing is the names and sizes below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			fmt.Fprintf(&text, "%s %d\n", path, info.Size())
		}
		return err
	}))
	return text.String()
}
