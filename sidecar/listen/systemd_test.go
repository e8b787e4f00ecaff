package listen_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/listen"
)

// asService makes this test binary the service that systemd starts; its value are the names it listens on.
const asService = "LANYARD_TEST_SERVICE"

func TestMain(m *testing.M) {
	names := os.Getenv(asService)
	if names == "" {
		os.Exit(m.Run())
	}
	if err := service(strings.Fields(names)); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// service says what it was given, then echoes one connection on each listener, twice: what a reload drops can come back.
func service(names []string) error {
	in, err := listen.TakeInherited()
	if err != nil {
		return err
	}
	fmt.Println("names:", strings.Join(in.Names(), " "))
	child, err := exec.Command("/bin/sh", "-c", `set | grep ^LISTEN_; for f in /proc/self/fd/*; do readlink $f; done | grep socket:; true`).Output()
	if err != nil {
		return err
	}
	fmt.Printf("child: %q\n", child)
	for range 2 {
		for _, name := range names {
			l, err := listen.Listen(context.Background(), listen.Address{Network: listen.Systemd, Address: name}, listen.Options{Key: "listen", Inherited: in})
			if err != nil {
				return err
			}
			fmt.Printf("listening: %s %T\n", name, l)
			if err := errors.Join(echoOnce(l), l.Close()); err != nil {
				return err
			}
		}
	}
	return in.Close()
}

// activate starts the service with the files, and returns the lines it prints.
func activate(t *testing.T, env string, names string, files ...*os.File) (lines *bufio.Scanner, wait func() error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// systemd sets LISTEN_PID between fork and exec: so does a shell.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe)
	cmd.Env = append(os.Environ(), asService+"="+names)
	cmd.Env = append(cmd.Env, strings.Fields(env)...)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return bufio.NewScanner(out), cmd.Wait
}

func expect(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
		t.Fatalf("%q, want %q", lines.Text(), want)
	}
}

func ping(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "ping" {
		t.Fatalf("%q, %v", got, err)
	}
}

func file(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSystemdSockets(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	lines, wait := activate(t, "LISTEN_FDS=2 LISTEN_FDNAMES=web:db.socket LISTEN_PIDFDID=1", "db.socket web",
		file(t, tcp.(*net.TCPListener)), file(t, local.(*net.UnixListener)))
	expect(t, lines, "names: db.socket web")
	expect(t, lines, `child: ""`) // neither variables nor sockets
	for range 2 {
		expect(t, lines, "listening: db.socket *net.UnixListener")
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		ping(t, c)
		expect(t, lines, "listening: web *net.TCPListener")
		if c, err = net.Dial("tcp", tcp.Addr().String()); err != nil {
			t.Fatal(err)
		}
		ping(t, c)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket was removed: %v", err)
	}
}

// Gap 27: what waits in the queue of a socket that systemd holds is served by the next process, where SO_REUSEPORT resets it.
func TestGap27SystemdKeepsTheQueueOverARestart(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	f := file(t, tcp.(*net.TCPListener))
	var waiting []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	for batch := range slices.Chunk(waiting, 2) {
		lines, wait := activate(t, "LISTEN_FDS=1 LISTEN_FDNAMES=web", "web", f)
		for _, c := range batch {
			ping(t, c)
		}
		for lines.Scan() {
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSystemdRefuses(t *testing.T) {
	stream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	datagram, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer errors.Join(pipe.Close(), w.Close())
	listener, packet := file(t, stream.(*net.TCPListener)), file(t, datagram.(*net.UDPConn))
	for _, tt := range []struct {
		env, names, want string
		files            []*os.File
	}{
		{"LISTEN_FDS=1 LISTEN_FDNAMES=web", "db", "listen systemd:db: systemd handed no socket of that name over, but web", []*os.File{listener}},
		{"LISTEN_FDS=2 LISTEN_FDNAMES=web:web", "web", "listen systemd:web: systemd handed several sockets of that name over", []*os.File{listener, listener}},
		{"LISTEN_FDS=1 LISTEN_FDNAMES=web", "web", "does not listen for streams: use ListenStream=", []*os.File{packet}},
		{"LISTEN_FDS=1 LISTEN_FDNAMES=web", "web", "is no socket", []*os.File{pipe}},
		{"LISTEN_FDS=1", "web", "but unknown", []*os.File{listener}},
		{"LISTEN_FDS=2 LISTEN_FDNAMES=web", "web", "LISTEN_FDNAMES=web has 1 names, but LISTEN_FDS=2", []*os.File{listener, listener}},
		{"LISTEN_FDS=x", "web", "LISTEN_FDS=x is not a number", nil},
		{"LISTEN_FDS=90 LISTEN_FDNAMES=a" + strings.Repeat(":b", 89), "a", "is not open", []*os.File{listener}},
		{"", "web", "systemd handed no socket over", nil},
	} {
		lines, wait := activate(t, tt.env, tt.names, tt.files...)
		var last string
		for lines.Scan() {
			last = lines.Text()
		}
		if err := wait(); err == nil || !strings.HasPrefix(last, "error:") || !strings.Contains(last, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.env, last, err, tt.want)
		}
	}
}

func TestSystemdSocketsOfAnotherProcess(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	in, err := listen.TakeInherited()
	if err != nil || len(in.Names()) != 0 {
		t.Errorf("%v, %v", in.Names(), err)
	}
	if _, found := os.LookupEnv("LISTEN_FDS"); found {
		t.Error("the variable is still set")
	}
}

func TestSystemdSocketActivate(t *testing.T) {
	activator, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not installed: apt-get install systemd")
	}
	path := filepath.Join(socketDir(t), "s")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(activator, "--listen="+path, "--fdname=web", "-E", asService+"=web", exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if said := bufio.NewScanner(stderr); !said.Scan() || !strings.HasPrefix(said.Text(), "Listening on") {
		t.Fatalf("%q", said.Text())
	}
	go io.Copy(io.Discard, stderr)
	for range 2 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		ping(t, c)
	}
	all, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(all), "names: web\n") {
		t.Errorf("%q, %v", all, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
