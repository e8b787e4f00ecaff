package workloadattest

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOneUserCannotTakeAll(t *testing.T) {
	var log bytes.Buffer
	now := time.Now()
	l := newLimits(slog.New(slog.NewTextHandler(&log, nil)), 0)
	l.files = func() uint64 { return 1024 }
	l.now = func() time.Time { return now }
	fill := func(uid uint32) (n int, err error) {
		for ; err == nil; n++ {
			err = l.acquire(uid)
		}
		return n - 1, err
	}
	// 1024 files, less 256, are 384 callers: half of them a user, an eighth root's.
	one, err := fill(1000)
	if one != 192 || !strings.Contains(err.Error(), "user 1000 has 192 connections") {
		t.Errorf("the first user: %d, %v", one, err)
	}
	two, err := fill(1001)
	if two != 144 || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("the second: %d, %v", two, err)
	}
	for range 100 {
		if err := l.acquire(0); err != nil {
			t.Fatal("root:", err)
		}
	}
	if n := strings.Count(log.String(), "nearly as many workloads"); n != 1 {
		t.Errorf("warned %d times", n)
	}
	for range one {
		l.release(1000)
	}
	if n, _ := fill(1001); n == 0 {
		t.Error("what one gave back is not the other's")
	}
	if _, known := l.open[1000]; known {
		t.Error("a user without connections is remembered")
	}
	if !l.seldom("x") || l.seldom("x") || !l.seldom("y") {
		t.Error("not once a key")
	}
	if now = now.Add(logEvery); !l.seldom("x") {
		t.Error("never again")
	}
	for i := range 2 * maxLogged {
		l.seldom(fmt.Sprint(i))
	}
	if len(l.told) > maxLogged {
		t.Errorf("%d remembered", len(l.told))
	}
}

// The soft limit of open files, often 1024, is not what callers have to share: Go's
// runtime raises it to the hard one.
func TestLimitOfFilesIsTheHardOne(t *testing.T) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	if got := openFiles(); got+1 < r.Max { // Go leaves one out
		t.Errorf("%d files may be open, the hard limit is %d", got, r.Max)
	}
}

func TestMaxPerUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be several users")
	}
	l, path := listen(t)
	if err := unix.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	creds := NewCredentials(CredentialsOptions{Limits: &Limits{newLimits(logger, 2)}, Log: logger})
	connect := func() net.Conn {
		startChild(t, path, "nobody")
		conn, _, _ := accept(t, l, creds)
		return conn
	}
	first, second := connect(), connect()
	for range 3 {
		if first == nil || second == nil || connect() != nil {
			t.Fatal("not two connections")
		}
	}
	if n := strings.Count(log.String(), "user 65534 has 2 connections"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	first.Close()
	first.Close()
	if connect() == nil || connect() != nil {
		t.Error("one that ended does not make room for one")
	}
}

// One goroutine watches all callers, while there are some; and nothing stays open.
func TestWatcherTakesNoGoroutinePerConnection(t *testing.T) {
	for name, creds := range onKernels() {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			goroutines, files := runtime.NumGoroutine(), openFileCount(t)
			var clients, conns []net.Conn
			for range 50 {
				client, err := net.Dial("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				raw, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				conn, _, err := creds.ServerHandshake(raw)
				if err != nil {
					t.Fatal(err)
				}
				clients, conns = append(clients, client), append(conns, conn)
			}
			if n := runtime.NumGoroutine(); n > goroutines+1 {
				t.Errorf("%d goroutines for 50 connections", n-goroutines)
			}
			if creds.watcher.loop == nil {
				t.Error("nobody watches them")
			}
			// Each has its two ends and a pin, and there is an epoll; the
			// runtime's own poller may have been opened meanwhile.
			if n := openFileCount(t) - files; n < 151 || n > 153 {
				t.Errorf("%d files for 50 connections", n)
			}
			for i := range conns {
				conns[i].Close()
				clients[i].Close()
			}
			// It has said that it ends; the runtime may still count it.
			for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
				runtime.Gosched()
			}
			if n := runtime.NumGoroutine(); n > goroutines || creds.watcher.loop != nil {
				t.Errorf("%d goroutines stay", n-goroutines)
			}
			if n := openFileCount(t); n > files+2 {
				t.Errorf("%d files stay open", n-files)
			}
			if creds.limits.total != 0 || len(creds.watcher.conns)+len(creds.watcher.weak) != 0 {
				t.Errorf("%d connections are counted, %d watched", creds.limits.total, len(creds.watcher.conns))
			}
		})
	}
}

func openFileCount(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestNamesAreLookedUpOnceInAWhile(t *testing.T) {
	asked := 0
	now := time.Now()
	n := newNames(func(id string) string { asked++; return "u" + id })
	n.now = func() time.Time { return now }
	for range 3 {
		if name := n.name(7); name != "u7" {
			t.Errorf("name %q", name)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if now = now.Add(nameAge); n.name(7) != "u7" || asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	for i := range uint32(3 * maxNames) {
		n.name(i)
	}
	if len(n.known) > maxNames {
		t.Errorf("%d names are kept", len(n.known))
	}
}

// BenchmarkIdleCaller measures what a connection costs besides gRPC.
func BenchmarkIdleCaller(b *testing.B) {
	dir := b.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	creds := testCredentials()
	var before, after runtime.MemStats
	heap := func(m *runtime.MemStats) { runtime.GC(); runtime.GC(); runtime.ReadMemStats(m) }
	conns := make([]net.Conn, 0, 2*b.N)
	heap(&before)
	goroutines := runtime.NumGoroutine()
	for b.Loop() {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		raw, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		conn, _, err := creds.ServerHandshake(raw)
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, client, conn)
	}
	heap(&after)
	b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/float64(b.N), "B/conn")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/conn")
	for _, c := range conns {
		c.Close()
	}
}

// BenchmarkAttest measures what knowing a caller costs, path and hash included.
func BenchmarkAttest(b *testing.B) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.TempDir(), "s")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	raw, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	conn, info, err := testCredentials().ServerHandshake(raw)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	a := New(Options{DiscoverPath: true})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Attest(b.Context(), info.(*Caller)); err != nil {
			b.Fatal(err)
		}
	}
}
