package sockets

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A moment without files to open must not end what a bind mount holds on to.
func TestFormerSocketOutlivesWantOfFiles(t *testing.T) {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listen := func(name string) *bound {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		return &bound{UnixListener: l}
	}
	s := newSocket(Spec{Path: filepath.Join(dir, "now")}, listen("now"))
	s.keep(listen("former"))
	defer func() {
		if err := s.close(false); err != nil {
			t.Error(err)
		}
	}()
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)

	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: files.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(client, &unix.SockaddrUnix{Name: filepath.Join(dir, "former")})
	time.Sleep(2 * acceptRetry) // nothing tells that an accept has failed
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &files)); err != nil {
		t.Fatal(err)
	}
	l := &listener{socket: s, closed: make(chan struct{})}
	defer l.Close()
	got := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		got <- conn
	}()
	select {
	case conn := <-got:
		if _, err := io.WriteString(conn, "."); err != nil {
			t.Error(err)
		}
		conn.Close()
	case <-time.After(10 * time.Second):
		t.Fatal("whoever calls on the former socket is heard no more")
	}
}
