package via_test

import (
	"bytes"
	"context"
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

	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// proxies are real ones; each returns its command line for a port, with the user "u" and the password s3cr3t if auth is set.
var proxies = []struct {
	name, scheme string
	command      func(t *testing.T, port int, auth bool) []string
	refuses      string // what it says without the password
}{
	{"tinyproxy", "http", tinyproxy, "407"},
	{"microsocks", "socks5", microsocks, "give socks5://USER:PASSWORD@"},
	{"danted", "socks5h", danted, ""}, // takes passwords of the system's users only
}

func tinyproxy(t *testing.T, port int, auth bool) []string {
	config := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 30\nLogLevel Error\n", port)
	if auth {
		config += "BasicAuth u s3cr3t\n"
	}
	return []string{"-d", "-c", write(t, config)}
}

func microsocks(_ *testing.T, port int, auth bool) []string {
	args := []string{"-i", "127.0.0.1", "-p", fmt.Sprint(port)}
	if auth {
		args = append(args, "-u", "u", "-P", "s3cr3t")
	}
	return args
}

func danted(t *testing.T, port int, _ bool) []string {
	config := fmt.Sprintf("logoutput: stderr\ninternal: 127.0.0.1 port = %d\nexternal: lo\nclientmethod: none\nsocksmethod: none\n", port) +
		"client pass { from: 127.0.0.0/8 to: 127.0.0.0/8 }\nsocks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
	return []string{"-f", write(t, config), "-p", filepath.Join(t.TempDir(), "pid")}
}

func write(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run starts a proxy and returns its address once it takes connections.
func run(t *testing.T, exe string, command func(port int) []string) string {
	t.Helper()
	for range 5 { // another process may take the port in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		var said bytes.Buffer
		cmd := exec.Command(exe, command(l.Addr().(*net.TCPAddr).Port)...)
		cmd.Stdout, cmd.Stderr = &said, &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); cmd.Wait() }()
		t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
		if listens(address, ended) {
			return address
		}
		t.Logf("%s ended: %s", exe, &said)
	}
	t.Fatalf("%s does not start", exe)
	return ""
}

// listens waits until address takes connections, or ended is closed. The kernel has no event for another process's listen(2).
func listens(address string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}

// Gap 23: an HTTP proxy's user and password were ignored.
func TestGap23RealProxies(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	port := backend.Addr().(*net.TCPAddr).Port
	for _, tt := range proxies {
		t.Run(tt.name, func(t *testing.T) {
			exe, err := exec.LookPath(tt.name)
			if err != nil {
				t.Skipf("%s is not installed: apt-get install tinyproxy microsocks dante-server", tt.name)
			}
			open := run(t, exe, func(port int) []string { return tt.command(t, port, false) })
			for _, host := range []string{"127.0.0.1", "localhost"} {
				echo(t, tt.scheme+"://"+open, fmt.Sprintf("%s:%d", host, port))
			}
			if tt.refuses == "" {
				return
			}
			closed := run(t, exe, func(port int) []string { return tt.command(t, port, true) })
			echo(t, tt.scheme+"://u:s3cr3t@"+closed, fmt.Sprintf("127.0.0.1:%d", port))
			for url, want := range map[string]string{tt.scheme + "://" + closed: tt.refuses, tt.scheme + "://u:s3cr3t2@" + closed: `user "u"`} {
				_, err := through(t, url, fmt.Sprintf("127.0.0.1:%d", port))
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("%s: %v, want %q", url, err, want)
				}
			}
		})
	}
}

// through dials as a tunnel does.
func through(t *testing.T, proxy, target string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	loops, err := poll.New(poll.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loops.Close() })
	return parse(t, proxy).Dial(ctx, func(ctx context.Context, network, address string) (net.Conn, error) {
		return loops.Dial(ctx, network, address, poll.DialOptions{})
	}, target)
}

func echo(t *testing.T, proxy, target string) {
	t.Helper()
	c, err := through(t, proxy, target)
	if err != nil {
		t.Errorf("%s: %v", proxy, err)
		return
	}
	defer c.Close()
	if _, ok := c.(*poll.Conn); !ok {
		t.Errorf("got a %T", c)
	}
	got := make([]byte, len("hello"))
	_, writeErr := io.WriteString(c, "hello")
	if _, err := io.ReadFull(c, got); err != nil || writeErr != nil || string(got) != "hello" {
		t.Errorf("%s: %q, %v, %v", proxy, got, err, writeErr)
	}
}
