package unixsock

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Who may write to the directory can put a link where the socket was: what it leads
// to must not be given away.
func TestSetOwnerFollowsNoLink(t *testing.T) {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	secret, link, socket := filepath.Join(dir, "secret"), filepath.Join(dir, "link"), filepath.Join(dir, "s")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, target := range map[string]string{"file": secret, "socket": socket} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if err := SetOwner(link, 0o777, -1, os.Getgid()); err == nil {
			t.Errorf("a link to a %s was followed", name)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
	if err := SetOwner(secret, 0o777, -1, -1); err == nil {
		t.Error("a file is taken for a socket")
	}
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v now: %v", info.Mode(), err)
	}
	if err := SetOwner(socket, 0o640, -1, os.Getgid()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the socket is %v: %v", info.Mode(), err)
	}
}
