package unixsock_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// socketDir is short: t.TempDir's path may be longer than a socket's can be.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o777} {
		path := filepath.Join(socketDir(t), "sub", "api.sock")
		l, err := unixsock.Listen(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		l.Close()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the file stayed after Close: %v", err)
		}
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "api.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestListenRefuses(t *testing.T) {
	dir := socketDir(t)
	live := filepath.Join(dir, "live.sock")
	l, err := unixsock.Listen(live, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ path, want string }{
		"live":           {live, "in use by pid"},
		"not a socket":   {file, "is not a socket"},
		"too long":       {filepath.Join(dir, strings.Repeat("x", 200)), "choose a shorter one"},
		"world writable": {filepath.Join(open, "s"), "chmod o-w"},
		"below that":     {filepath.Join(open, "own", "s"), "chmod o-w " + open},
	}
	if os.Geteuid() == 0 {
		foreign := filepath.Join(dir, "foreign")
		if err := os.Mkdir(foreign, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		tests["foreign owner"] = struct{ path, want string }{filepath.Join(foreign, "s"), "belongs to uid 12345"}
		// Below /tmp, and there before us: a directory, and a link to one.
		first := socketDir(t)
		link := first + "-link"
		if err := errors.Join(os.Symlink(first, link), os.Lchown(link, 12345, 12345), os.Chown(first, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(link) })
		tests["made by another user"] = struct{ path, want string }{filepath.Join(first, "public", "s"), first + " belongs to uid 12345"}
		tests["linked by another user"] = struct{ path, want string }{filepath.Join(link, "public", "s"), link} // the kernel may be first to refuse it
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := unixsock.Listen(tt.path, 0o600)
			if err == nil {
				got.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
	if _, err := os.Stat(live); err != nil {
		t.Errorf("the live socket is gone: %v", err)
	}
}

func TestDialTrusted(t *testing.T) {
	path := filepath.Join(socketDir(t), "api.sock")
	l, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := unixsock.DialTrusted(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	uid, err := unixsock.PeerUID(conn.(*net.UnixConn))
	if err != nil || uid != os.Geteuid() {
		t.Errorf("peer uid %d, %v", uid, err)
	}
	if _, err := unixsock.DialTrusted(t.Context(), path+"x"); err == nil || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("absent socket: %v", err)
	}
}
