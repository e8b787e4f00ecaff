package workloadattest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

func TestCallerIsTheConnectedProcess(t *testing.T) {
	for name, creds := range onKernels() {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			child := startChild(t, path, "")
			_, caller, err := accept(t, l, creds)
			if err != nil {
				t.Fatal(err)
			}
			if caller.PID() != child.cmd.Process.Pid {
				t.Errorf("caller is pid %d, want %d", caller.PID(), child.cmd.Process.Pid)
			}
			sel, err := New(Options{DiscoverPath: true}).Attest(t.Context(), caller)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range ownSelectors(t) {
				if !slices.Contains(sel.Selectors, want) {
					t.Errorf("no selector %s in %v", want, sel.Selectors)
				}
			}
			child.end(t)
			if _, err := New(Options{}).Attest(t.Context(), caller); !errors.Is(err, ErrGone) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func ownSelectors(t *testing.T) []registration.Selector {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return []registration.Selector{
		unixSelector("uid", fmt.Sprint(os.Geteuid())),
		unixSelector("gid", fmt.Sprint(os.Getegid())),
		unixSelector("path", exe),
		unixSelector("sha256", hex.EncodeToString(sum[:])),
	}
}

func TestConnectionEndsWithItsProcess(t *testing.T) {
	for name, creds := range onKernels() {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			child := startChild(t, path, "heir", "FIFO="+fifo(t))
			conn, _, err := accept(t, l, creds)
			if err != nil {
				t.Fatal(err)
			}
			child.end(t)
			// The heir has the socket: it would stay open without the watcher.
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v, want %v", err, net.ErrClosed)
			}
		})
	}
}

func TestEndedProcessIsRefused(t *testing.T) {
	for name, creds := range onKernels() {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			startChild(t, path, "heir", "FIFO="+fifo(t)).end(t)
			if _, caller, err := accept(t, l, creds); !errors.Is(err, ErrGone) {
				t.Errorf("accepted %+v, %v", caller, err)
			}
		})
	}
}

// What is wrong with the agent or its surroundings is for its operator to know.
func TestOwnFailuresAreToldFromEndedCallers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Credentials)
		want   string
	}{
		"no more files": {func(c *Credentials) { c.kernel.peer = func(int) (int, error) { return -1, unix.EMFILE } }, "too many open files"},
		"another pidfd": {func(c *Credentials) { c.kernel.peer = func(int) (int, error) { return unix.PidfdOpen(os.Getpid(), 0) } }, "another process's"},
		"foreign /proc": {func(c *Credentials) { c.ownProc = func() error { return isOwn([]byte("NSpid:\t4\t7\n"), 7) } }, "/proc names this process pid [4 7]"},
	} {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			startChild(t, path, "")
			var log bytes.Buffer
			creds := NewCredentials(CredentialsOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
			test.change(creds)
			for range 3 {
				_, caller, err := accept(t, l, creds)
				if err == nil || errors.Is(err, ErrGone) {
					t.Errorf("accepted %+v, %v", caller, err)
				}
				startChild(t, path, "")
			}
			if n := strings.Count(log.String(), test.want); n != 1 {
				t.Errorf("the log says %d times %q: %s", n, test.want, log.String())
			}
		})
	}
}

func TestChangedUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change its user")
	}
	l, path := listen(t)
	startChild(t, path, "setuid")
	conn, caller, err := accept(t, l, testCredentials())
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{}).Attest(t.Context(), caller)
	if err == nil || !strings.Contains(err.Error(), "connected as user 0") {
		t.Errorf("attested: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("connection is open: %v", err)
	}
}

// askedContext calls ask when it is first asked for its error, which is when the
// executable has been opened and is about to be read.
type askedContext struct {
	context.Context
	ask func()
}

func (c askedContext) Err() error {
	c.ask()
	return c.Context.Err()
}

// What a process executes and who it is are of one moment: it must not get the
// path of a set-user-ID program beside the user that it was before.
func TestUserChangedWhileTheExecutableIsRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change its user")
	}
	l, path := listen(t)
	child := startChild(t, path, "setuid later")
	_, caller, err := accept(t, l, testCredentials())
	if err != nil {
		t.Fatal(err)
	}
	ctx := askedContext{t.Context(), sync.OnceFunc(func() {
		fmt.Fprintln(child.stdin)
		child.said(t, "changed")
	})}
	sel, err := New(Options{DiscoverPath: true}).Attest(ctx, caller)
	if err == nil || !strings.Contains(err.Error(), "connected as user 0") {
		t.Errorf("attested: %v, %v", sel, err)
	}
}

func TestSizeLimit(t *testing.T) {
	l, path := listen(t)
	startChild(t, path, "")
	_, caller, err := accept(t, l, testCredentials())
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{-1, 10} {
		sel, err := New(Options{DiscoverPath: true, SizeLimit: limit}).Attest(t.Context(), caller)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, s := range sel.Selectors {
			kind, _, _ := strings.Cut(s.Value, ":")
			kinds = append(kinds, kind)
		}
		if !slices.Contains(kinds, "path") || slices.Contains(kinds, "sha256") {
			t.Errorf("limit %d: selectors %v, want a path and no sha256", limit, kinds)
		}
	}
}

func TestHashFollowsContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	cache := newHashCache()
	now := time.Now()
	cache.now = func() time.Time { return now }
	for _, content := range []string{"one", "two", "three"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sum := sha256.Sum256([]byte(content))
		for range 2 {
			if got, err := cache.sum(t.Context(), 1000, f, 0); err != nil || got != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: %s, %v", content, got, err)
			}
		}
	}
}

// A file can change again within the tick in which it changed: of the same size,
// it looks the same. So its sum is kept only once its last change is some time ago.
func TestHashOfAFreshFileIsNotKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := version(f)
	if err != nil {
		t.Fatal(err)
	}
	cache := newHashCache()
	for age, kept := range map[time.Duration]bool{settled / 2: false, -time.Hour: false, settledCoarse + time.Second: true} {
		cache.sums = make(map[fileVersion]*fileSum)
		cache.now = func() time.Time { return time.Unix(v.ctime.Unix()).Add(age) }
		if _, err := cache.sum(t.Context(), 1000, f, 0); err != nil {
			t.Fatal(err)
		}
		if got := cache.sums[v].hex != ""; got != kept {
			t.Errorf("%s after its change: kept %v", age, got)
		}
	}
	for range 2 * maxHashes {
		v.ino++
		cache.entry(v)
	}
	if len(cache.sums) > maxHashes {
		t.Errorf("%d sums are kept", len(cache.sums))
	}
}

// At most two files are read at once; who waits can be cancelled.
func TestHashersAreFew(t *testing.T) {
	cache := newHashCache()
	for range hashers {
		cache.slots <- struct{}{}
	}
	f, err := os.Open("attest_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cache.sum(ctx, 1000, f, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-cache.slots
	if _, err := cache.sum(t.Context(), 1000, f, 0); err != nil {
		t.Error(err)
	}
}

// Whoever has the caller's socket speaks as the caller: a child that inherited it
// and a process that it was sent to, and that can be told to speak.
func TestSharedSocketIsTheConnectors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change its user")
	}
	for name, creds := range onKernels() {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			child := startChild(t, path, "share")
			conn, caller, err := accept(t, l, creds)
			if err != nil {
				t.Fatal(err)
			}
			// The other, as another user, writes on the connection that it was sent.
			said := make([]byte, 5)
			if _, err := io.ReadFull(conn, said); err != nil || string(said) != "other" {
				t.Fatalf("%q, %v", said, err)
			}
			res, err := New(Options{}).Attest(t.Context(), caller)
			if err != nil || caller.PID() != child.cmd.Process.Pid || !slices.Contains(res.Selectors, unixSelector("uid", "0")) {
				t.Errorf("pid %d: %v, %v", caller.PID(), res.Selectors, err)
			}
			child.end(t)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("it outlives its connector: %v", err)
			}
		})
	}
}
