package unixsock_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// pair returns both ends of a socket that keeps messages apart.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { conn.Close() })
	}
	return ends[0], ends[1]
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestPassAndReceive(t *testing.T) {
	a, b := pair(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := errors.Join(unixsock.Pass(a, []byte("with"), file), unixsock.Pass(a, []byte("without"), nil)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, got, err := unixsock.Receive(b, buf)
	if err != nil || string(buf[:n]) != "with" || got == nil {
		t.Fatalf("%q, %v, %v", buf[:n], got, err)
	}
	defer got.Close()
	if text, err := io.ReadAll(got); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if n, got, err := unixsock.Receive(b, buf); err != nil || string(buf[:n]) != "without" || got != nil {
		t.Errorf("%q, %v, %v", buf[:n], got, err)
	}
	a.Close()
	if _, _, err := unixsock.Receive(b, buf); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// What comes in a form that is not expected leaves no file open.
func TestReceiveLeaksNothing(t *testing.T) {
	a, b := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := openFDs(t)
	fd := int(null.Fd())
	for name, test := range map[string]struct {
		data string
		fds  []int
	}{
		"two files":      {"x", []int{fd, fd}},
		"many files":     {"x", make([]int, 200)},
		"a long message": {strings.Repeat("x", 64), []int{fd}},
	} {
		if _, _, err := a.WriteMsgUnix([]byte(test.data), unix.UnixRights(test.fds...), nil); err != nil {
			t.Fatal(err)
		}
		if _, file, err := unixsock.Receive(b, make([]byte, 16)); err == nil || file != nil {
			t.Errorf("%s: received %v", name, file)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d files are open, before %d", after, before)
	}
}

func TestListenOwned(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(socketDir(t), "s.sock")
	l, err := unixsock.ListenOwned(path, 0o660, 12345, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Uid != 12345 || st.Gid != 0 || st.Mode&0o777 != 0o660 {
		t.Errorf("uid %d, gid %d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
}
