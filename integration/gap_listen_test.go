package integration

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// Gap 22: ghostunnel's :PORT is IPv4 only.
func TestGap22ListensOnBothStacks(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		l.Close()
	}
	s := newSVIDs(t)
	_, port, _ := net.SplitHostPort(s.Addr())
	s.Sidecar(harness.SidecarSpec{Name: "server", Binary: s.SidecarBinary(), Mode: "server", Listen: ":" + port, Target: echo(t),
		Args: append(s.args("server"), "--allow-uri", s.id("client"))})
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := tls.Dial("tcp", net.JoinHostPort(host, port), s.tls(t, "client"))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		exchange(t, conn, "hello")
		conn.Close()
	}
}

// Gap 22: two ghostunnels, or one's --listen and --status, share a port by accident.
func TestGap22RefusesAPortInUse(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	first := s.sidecar("server", "server", echo(t), "--allow-all")
	free := s.Addr()
	for name, m := range map[string]struct{ listen, status, says string }{
		"of another process":    {first.Listen, s.Addr(), "--listen"},
		"of another's status":   {first.Status, s.Addr(), "--listen"},
		"of its own status":     {free, free, "address of status"},
		"its status, another's": {s.Addr(), first.Listen, "--status"},
	} {
		t.Run(name, func(t *testing.T) {
			mistake{exit: 1, want: []string{m.says}, args: append([]string{"sidecar", "server", "--listen", m.listen,
				"--status", "http://" + m.status, "--target", "127.0.0.1:1", "--allow-all"}, s.args("second")...)}.check(t, s.Dir)
		})
	}
}

// Gap 22: a socket that a killed ghostunnel left is fatal to the next.
func TestGap22ReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	socket := s.Path("run", "listen.sock")
	server := s.sidecar("server", "server", echo(t), "--allow-uri", s.id("client"))
	spec := harness.SidecarSpec{Name: "client", Binary: s.SidecarBinary(), Mode: "client", Listen: "unix:" + socket,
		Target: server.Listen, Args: append(s.args("client"), "--verify-uri", s.id("server"))}
	for range 2 {
		client := s.Sidecar(spec)
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
		conn.Close()
		client.Kill() // leaves the socket behind
		if _, err := os.Stat(socket); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("but not one that is in use", func(t *testing.T) {
		client := s.Sidecar(spec)
		mistake{exit: 1, want: []string{"--listen", socket, "in use"}, args: append([]string{"sidecar", "client", "--listen", spec.Listen,
			"--target", spec.Target}, spec.Args...)}.check(t, s.Dir)
		if conn, err := net.Dial("unix", socket); err != nil {
			t.Error(err)
		} else {
			exchange(t, conn, "still served")
			conn.Close()
		}
		if err := client.Stop(fetchLimit); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("a regular end leaves the socket: %v", err)
		}
	})
	t.Run("nor a file", func(t *testing.T) {
		file := s.WriteFile("run/file", "precious")
		mistake{exit: 1, want: []string{"--listen", file}, args: append([]string{"sidecar", "client", "--listen", "unix:" + file,
			"--target", spec.Target}, spec.Args...)}.check(t, s.Dir)
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "precious") {
			t.Errorf("the file in the way is gone: %v", err)
		}
	})
}
