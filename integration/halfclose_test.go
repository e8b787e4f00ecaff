package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// startRsync starts an rsync daemon on the stage, with a module "tree" on a folder that it makes.
func startRsync(t *testing.T, s *harness.Stage) (addr, tree string) {
	t.Helper()
	addr, tree = s.Addr(), filepath.Dir(s.Path("rsync", "tree", "x"))
	host, port, _ := strings.Cut(addr, ":")
	conf := s.WriteFile("rsync/rsyncd.conf", `
use chroot = no
pid file = `+s.Path("rsync", "pid")+`
lock file = `+s.Path("rsync", "lock")+`
log file = /dev/stderr
uid = `+whoami(t)+`
[tree]
path = `+tree+`
read only = no
`)
	s.StartCmd("rsyncd", exec.Command(program(t, "rsync"), "--daemon", "--no-detach", "--address", host, "--port", port, "--config", conf))
	return addr, tree
}

func whoami(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "id", "-un"))
}

// TestSidecarRsync moves a tree there and back. Its daemon closes first one way, then the other.
func TestSidecarRsync(t *testing.T) {
	t.Parallel()
	rsync := program(t, "rsync")
	s := newSVIDs(t)
	addr, tree := startRsync(t, s.Stage)
	p := s.pair(addr)
	url := "rsync://" + p.client.Listen + "/tree/"
	mine := filepath.Dir(s.Path("mine", "x"))
	for name, size := range map[string]int{"empty": 0, "small": 1, "sub/other": 70_000, "sub/large": 24 << 20, "sub/sub/large": 8 << 20} {
		if err := os.WriteFile(s.Path("mine", name), random(size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := sums(t, mine)
	run(t, rsync, "-a", "--whole-file", mine+"/", url)
	if diff := cmp.Diff(want, sums(t, tree)); diff != "" {
		t.Errorf("uploaded:\n%s", diff)
	}
	back := filepath.Dir(s.Path("back", "x"))
	run(t, rsync, "-a", "--checksum", url, back+"/")
	if diff := cmp.Diff(want, sums(t, back)); diff != "" {
		t.Errorf("downloaded:\n%s", diff)
	}
	if out := run(t, rsync, "-a", "--checksum", "--itemize-changes", mine+"/", url); out != "" {
		t.Errorf("rsync finds a difference: %s", out)
	}
	connections(t, p.client, 3, "closed", "reset")
	connections(t, p.server, 3, "closed", "reset")
}

// sums are the checksums of the files below a folder.
func sums(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	found := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, dir)] = sha256.Sum256(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSidecarHalfClose sends a request with nc, which closes its side at once. The answer comes long after, when both
// identities have been replaced, and whole.
func TestSidecarHalfClose(t *testing.T) {
	t.Parallel()
	nc := program(t, "nc")
	if out, _ := exec.Command(nc, "-h").CombinedOutput(); !bytes.Contains(out, []byte("-N")) {
		t.Skip("this nc has no -N: make test installs OpenBSD's where it can")
	}
	request, answer := random(3<<20), random(5<<20)
	got, release := make(chan []byte, 1), make(chan struct{})
	addr := serve(t, func(conn *net.TCPConn) {
		text, _ := io.ReadAll(conn)
		if len(text) == 0 { // a probe of the sidecar's
			return
		}
		got <- text
		<-release
		_, _ = conn.Write(answer)
	})
	p := newPair(t, newDomain(t), addr, rotatingLife)
	host, port, _ := strings.Cut(p.client.Listen, ":")
	ctx, cancel := context.WithTimeout(t.Context(), 3*fetchLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, nc, "-N", host, port)
	cmd.Stdin = bytes.NewReader(request)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if !bytes.Equal(text, request) {
			t.Errorf("%d bytes arrived of %d, or others", len(text), len(request))
		}
		p.rotated()
	case <-time.After(fetchLimit):
		t.Error("the end of the request did not arrive")
	}
	close(release)
	if err := cmd.Wait(); err != nil || !bytes.Equal(out.Bytes(), answer) {
		t.Errorf("%d bytes came back of %d, or others: %v", out.Len(), len(answer), err)
	}
	connections(t, p.client, 1, "closed")
	connections(t, p.server, 1, "closed")
}

// serve is the address of a server that handles each connection, and closes it then.
func serve(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}
