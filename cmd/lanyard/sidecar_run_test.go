package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// program is a process of this test binary by another name, and what it has logged.
type program struct {
	t   *testing.T
	cmd *exec.Cmd

	mu   sync.Mutex
	log  bytes.Buffer // guarded by mu
	more chan struct{}
	gone chan struct{}
	err  error // what it ended with, once gone
}

// start runs name (lanyard, ghostunnel) with args in dir. It is killed at the test's end, if it is still there.
func start(t *testing.T, dir string, vars []string, name string, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: exec.Command(self, args...), more: make(chan struct{}, 1), gone: make(chan struct{})}
	p.cmd.Args[0], p.cmd.Dir = name, dir
	p.cmd.Env = append(append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET="), vars...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(p.gone)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.log, lines.Text())
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may be gone
		<-p.gone
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(p.cmd.Args, " "), p.text())
		}
	})
	return p
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// saw waits until the log has text n times.
func (p *program) saw(text string, n int) {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for strings.Count(p.text(), text) < n {
		select {
		case <-p.more:
		case <-p.gone:
			if strings.Count(p.text(), text) < n {
				p.t.Fatalf("ended with %v before it logged %q %d times", p.err, text, n)
			}
		case <-limit.C:
			p.t.Fatalf("%q was not logged %d times within %v", text, n, patience)
		}
	}
}

// end waits for the exit code.
func (p *program) end(want int) {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		p.t.Fatalf("it did not end within %v", patience)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("exit code %d, want %d", got, want)
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// echo is a server that says back what it hears; it gives its address.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // until the other end has enough
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	return l.Addr().String()
}

// talk says text on c and wants to hear it again.
func talk(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v", got, err)
	}
}

// hello is a conversation through a tunnel, which is over.
func hello(t *testing.T, path string) {
	t.Helper()
	c := dialUnix(t, path)
	defer c.Close()
	talk(t, c, "hello")
}

func dialUnix(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pairFile is a configuration with both ends of tunnels, named by their sockets in the working directory: in-NAME.sock takes
// plaintext, mid-NAME.sock TLS. A client's target is TCP, so the middle is a port.
type pairFile struct {
	target string
	names  []string
	port   map[string]int
	extra  string
}

func (f pairFile) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log_level = \"debug\"\nshutdown_timeout = \"20s\"\nstatus {\n  listen = \"unix:status.sock\"\n}\n%s\n", f.extra)
	const identity = "  identity {\n    cert = \"cert.pem\"\n    key  = \"key.pem\"\n    trust_bundle \"a\" {\n      file = \"ca.pem\"\n    }\n  }\n"
	for _, name := range f.names {
		fmt.Fprintf(&b, "tunnel \"%s-out\" {\n  direction = \"outbound\"\n  listen = \"unix:in-%s.sock\"\n  target = \"127.0.0.1:%d\"\n%s  policy {\n    allow_uris = [\"spiffe://a/b\"]\n  }\n}\n",
			name, name, f.port[name], identity)
		fmt.Fprintf(&b, "tunnel \"%s-in\" {\n  direction = \"inbound\"\n  listen = \"127.0.0.1:%d\"\n  target = \"%s\"\n%s  policy {\n    own_trust_domain = true\n  }\n}\n",
			name, f.port[name], f.target, identity)
	}
	return b.String()
}

// freePorts gives n ports that were free a moment ago.
func freePorts(t *testing.T, names ...string) map[string]int {
	ports := map[string]int{}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[name] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// shortDir is a directory that sockets have room in.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// status is what /_status says.
type status struct {
	OK         bool      `json:"ok"`
	LastReload time.Time `json:"last_reload"`
	Message    string    `json:"message"`
}

func readStatus(t *testing.T, socket string) (s status) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Get("http://x/_status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// write replaces a file as editors and deployments do.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestGap14ManyTunnelsInOneProcess and gap 15: the file is read again when it changes, all of it or nothing, and connections stay.
func TestGap14ManyTunnelsInOneProcess(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "sidecar.hcl")
	f := pairFile{target: echo(t), names: []string{"x", "y"}, port: freePorts(t, "x", "y", "z")}
	write(t, conf, f.String())
	p := start(t, dir, nil, "lanyard", "sidecar", "run", "-config", "sidecar.hcl")
	p.saw("msg=listening", 4)
	x, y := dialUnix(t, filepath.Join(dir, "in-x.sock")), dialUnix(t, filepath.Join(dir, "in-y.sock"))
	talk(t, x, "hello")
	talk(t, y, "hello")

	// A third one comes, and the connections of the others don't notice.
	f.names = []string{"x", "y", "z"}
	write(t, conf, f.String())
	p.saw("msg=reloaded", 1)
	hello(t, filepath.Join(dir, "in-z.sock"))
	talk(t, x, "still")
	talk(t, y, "there")

	// One goes: nobody gets in any more, but who is in stays in.
	f.names = []string{"x", "z"}
	write(t, conf, f.String())
	p.saw("msg=reloaded", 2)
	for until := time.Now().Add(patience); ; {
		c, err := net.Dial("unix", filepath.Join(dir, "in-y.sock"))
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(until) {
			t.Fatal("the tunnel that is gone takes connections")
		}
	}
	talk(t, y, "still")

	p.signal(syscall.SIGTERM)
	p.saw("shutting down", 1)
	talk(t, x, "bye")
	x.Close()
	y.Close()
	p.end(0)
}

func TestGap15ReloadIsAllOrNothing(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "sidecar.hcl")
	f := pairFile{target: echo(t), names: []string{"x"}, port: freePorts(t, "x", "y")}
	write(t, conf, f.String())
	p := start(t, dir, nil, "lanyard", "sidecar", "run", "-config", "sidecar.hcl")
	p.saw("msg=listening", 2)
	socket := filepath.Join(dir, "status.sock")
	if s := readStatus(t, socket); !s.LastReload.IsZero() {
		t.Errorf("reloaded at %v", s.LastReload)
	}

	// Something is wrong at the end of a file that else brings a tunnel.
	f.names, f.extra = []string{"x", "y"}, "quiet = [\"x\"]"
	write(t, conf, f.String())
	p.saw("reload failed", 1)
	p.saw(`sidecar.hcl:6: quiet: \"x\" is none of all, conns, conn-errs, handshake-errs`, 1)
	if s := readStatus(t, socket); !s.LastReload.IsZero() {
		t.Errorf("a reload that failed counts, at %v", s.LastReload)
	}
	if _, err := os.Stat(filepath.Join(dir, "in-y.sock")); err == nil {
		t.Error("half of the file is in use")
	}
	hello(t, filepath.Join(dir, "in-x.sock"))

	// So it is if the files that it names are not there.
	f.extra = ""
	write(t, conf, strings.Replace(f.String(), `"ca.pem"`, `"nosuch.pem"`, 1))
	p.saw("reload failed", 2)
	hello(t, filepath.Join(dir, "in-x.sock"))

	// Mended, a signal or the change is enough.
	write(t, conf, f.String())
	p.saw("msg=reloaded", 1)
	if s := readStatus(t, socket); s.LastReload.IsZero() || s.Message != "listening" {
		t.Errorf("%+v", s)
	}
	p.signal(syscall.SIGHUP)
	p.saw("msg=reloaded", 2)
	p.signal(syscall.SIGUSR1)
	p.saw("msg=reloaded", 3)
	p.signal(syscall.SIGTERM)
	p.end(0)
}
