package workloadattest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// childEnv makes the test binary a caller: it connects to the socket named
// there and does what follows the colon.
const childEnv = "WORKLOADATTEST_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Println("child:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child connects, says so on stdout, and goes on when stdin has a line.
func child(spec string) error {
	path, what, _ := strings.Cut(spec, ":")
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	socket, err := conn.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	if what == "heir" {
		// A process of its own that keeps the socket open.
		heir := exec.Command("cat")
		heir.Env, heir.ExtraFiles = []string{}, []*os.File{socket}
		if heir.Stdin, err = os.Open(os.Getenv("FIFO")); err != nil {
			return err
		}
		if err := heir.Start(); err != nil {
			return err
		}
	}
	if what == "setuid" {
		if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			return err
		}
	}
	fmt.Println("connected")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

type childProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// startChild returns when the child has connected.
func startChild(t *testing.T, path, what string, env ...string) *childProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), childEnv+"="+path+":"+what), env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "connected\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	return &childProcess{cmd: cmd, stdin: stdin}
}

// end lets the child exit and reaps it.
func (c *childProcess) end(t *testing.T) {
	t.Helper()
	c.stdin.Close()
	c.cmd.Wait()
}

func accept(t *testing.T, l *net.UnixListener, creds *Credentials) (net.Conn, *Caller, error) {
	t.Helper()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn, info, err := creds.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { conn.Close() })
	return conn, info.(*Caller), nil
}

func testCredentials() *Credentials { return NewCredentials(slog.New(slog.DiscardHandler)) }

// withoutPeerPIDFD is a kernel before 6.5.
func withoutPeerPIDFD() *Credentials {
	c := testCredentials()
	c.peerPIDFD = func(int) (int, error) { return -1, unix.ENOPROTOOPT }
	return c
}

func TestCallerIsTheConnectedProcess(t *testing.T) {
	for name, creds := range map[string]*Credentials{"pidfd": testCredentials(), "fallback": withoutPeerPIDFD()} {
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
				if !slices.Contains(sel, want) {
					t.Errorf("no selector %s in %v", want, sel)
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
	for name, creds := range map[string]*Credentials{"pidfd": testCredentials(), "fallback": withoutPeerPIDFD()} {
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
	for name, creds := range map[string]*Credentials{"pidfd": testCredentials(), "fallback": withoutPeerPIDFD()} {
		t.Run(name, func(t *testing.T) {
			l, path := listen(t)
			startChild(t, path, "heir", "FIFO="+fifo(t)).end(t)
			if _, caller, err := accept(t, l, creds); !errors.Is(err, ErrGone) {
				t.Errorf("accepted %+v, %v", caller, err)
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
		for _, s := range sel {
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
	for _, content := range []string{"one", "three"} {
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
			if got, err := cache.sum(t.Context(), f, 0); err != nil || got != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: %s, %v", content, got, err)
			}
		}
	}
}

// fifo returns a named pipe that this test holds open until its end.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path
}
