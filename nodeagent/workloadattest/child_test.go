package workloadattest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	if what == "receive" {
		return receive()
	}
	become := func() error { return errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)) }
	if what == "nobody" {
		if err := become(); err != nil {
			return err
		}
	}
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
	if what == "share" {
		if err := share(socket); err != nil {
			return err
		}
	}
	if what == "setuid" {
		if err := become(); err != nil {
			return err
		}
	}
	fmt.Println("connected")
	in := bufio.NewReader(os.Stdin)
	if _, err = in.ReadString('\n'); err != nil || what != "setuid later" {
		return err
	}
	if err := become(); err != nil {
		return err
	}
	fmt.Println("changed")
	_, err = in.ReadString('\n')
	return err
}

// share sends the socket to a process of another user (SCM_RIGHTS, unix(7)), which
// writes on it, and leaves it there.
func share(socket *os.File) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	other := exec.Command(exe)
	other.Env = []string{childEnv + "=:receive"}
	other.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "pair")}
	if err := other.Start(); err != nil {
		return err
	}
	return unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(int(socket.Fd())), nil, 0)
}

// receive is the other process of share. It ends when the socket does.
func receive() error {
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), "socket")
	if _, err := f.WriteString("other"); err != nil {
		return err
	}
	_, err = f.Read(make([]byte, 1))
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
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
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
	c := &childProcess{cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	c.said(t, "connected")
	return c
}

// said waits for the child's next line.
func (c *childProcess) said(t *testing.T, want string) {
	t.Helper()
	if line, err := c.stdout.ReadString('\n'); line != want+"\n" {
		t.Fatalf("child said %q, %v; want %q", line, err, want)
	}
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

func testCredentials() *Credentials {
	c := NewCredentials(CredentialsOptions{})
	c.watcher.interval = 5 * time.Millisecond
	return c
}

// onKernels returns credentials as they are on this kernel and on older ones.
func onKernels() map[string]*Credentials {
	all := make(map[string]*Credentials)
	for name, weaken := range olderKernels() {
		c := testCredentials()
		weaken(&c.kernel)
		all[name] = c
	}
	return all
}

func olderKernels() map[string]func(*kernel) {
	noPidfs := func(k *kernel) { k.pidfs = func(int) bool { return false } }
	noPeer := func(k *kernel) {
		noPidfs(k)
		k.peer = func(int) (int, error) { return -1, unix.ENOPROTOOPT }
	}
	return map[string]func(*kernel){
		"this":   func(*kernel) {},
		"v6.5":   noPidfs,
		"v5.3":   noPeer,
		"before": func(k *kernel) { noPeer(k); k.open = func(int) (int, error) { return -1, unix.ENOSYS } },
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
