package sandbox_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/lanyard-mtls/lanyard/sidecar/sandbox"
)

// needs skips a test if the kernel's Landlock is older than abi.
func needs(t *testing.T, abi int) {
	t.Helper()
	has, err := llsys.LandlockGetABIVersion()
	if err != nil || has < abi {
		t.Skipf("this kernel has Landlock %d (%v), the test needs %d", max(has, 0), err, abi)
	}
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// tree makes files (and links, "name -> target") below a new directory, and returns that.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range names {
		name, target, link := strings.Cut(name, " -> ")
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if link {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(name), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFiles(t *testing.T) {
	needs(t, 1)
	dir := tree(t, "certs/tls.pem", "conf/more/policy", "other/secret", "state/x", "bin/tool")
	if err := os.Chmod(dir+"/bin/tool", 0o700); err != nil {
		t.Fatal(err)
	}
	rules := sandbox.Rules{
		ReadFiles: []string{dir + "/certs/tls.pem", dir + "/absent/key.pem", ""},
		ReadDirs:  []string{dir + "/conf"},
		WriteDirs: []string{dir + "/state", dir + "/made"},
		Bind:      []string{"unix:" + dir + "/sockets/new/s"},
	}
	log := child(t, rules, nil,
		step{"read " + dir + "/certs/tls.pem", "ok"},
		step{"write " + dir + "/certs/tls.pem", "EACCES"},
		step{"read " + dir + "/conf/more/policy", "ok"},
		step{"read " + dir + "/other/secret", "EACCES"},
		step{"list " + dir + "/other", "EACCES"},
		step{"replace " + dir + "/state/x", "ok"},
		step{"replace " + dir + "/made/x", "ok"},
		step{"remove " + dir + "/state/x", "ok"},
		step{"write " + dir + "/other/new", "EACCES"},
		step{"write /tmp/lanyard-sandbox-test", "EACCES"},
		step{"exec " + dir + "/bin/tool", "EACCES"},
		step{"exec /bin/true", "EACCES"},
		step{"read /etc/resolv.conf", "ok"},
		step{"read /proc/self/stat", "ok"},
		step{"write /dev/null", "ok"},
		step{"resolve localhost", "ok"},
		step{"nonewprivs", "ok"},
		step{"burn", "ok"},
	)
	if !strings.Contains(log, "absent/key.pem can't be read once it is there: its directory is missing") || strings.Count(log, "level=INFO") != 1 {
		t.Errorf("logged %s", log)
	}
}

// Gap 13: a certificate that was exchanged through links, as Kubernetes and certbot do, could not be read again.
func TestGap13CertificateLinksCanBeExchanged(t *testing.T) {
	needs(t, 1)
	dir := tree(t,
		"k8s/..v1/tls.crt", "k8s/..v2/tls.crt", "k8s/..data -> ..v1", "k8s/tls.crt -> ..data/tls.crt",
		"live/site/cert.pem -> ../../archive/site/cert1.pem", "archive/site/cert1.pem", "archive/site/cert2.pem",
		"releases/one/cert.pem", "releases/two/cert.pem", "srv/current -> ../releases/one",
		"loop/a -> b", "loop/b -> a", "else/cert.pem",
	)
	rules := sandbox.Rules{
		ReadFiles: []string{dir + "/k8s/tls.crt", dir + "/live/site/cert.pem", dir + "/srv/current/cert.pem", dir + "/loop/a"},
		WriteDirs: []string{dir + "/k8s", dir + "/live", dir + "/srv"}, // the child exchanges them itself
	}
	child(t, rules, nil,
		step{"read " + dir + "/k8s/tls.crt", "ok"},
		step{"swap " + dir + "/k8s/..data ..v2", "ok"},
		step{"read " + dir + "/k8s/tls.crt", "ok"},
		step{"read " + dir + "/live/site/cert.pem", "ok"},
		step{"swap " + dir + "/live/site/cert.pem ../../archive/site/cert2.pem", "ok"},
		step{"read " + dir + "/live/site/cert.pem", "ok"},
		step{"read " + dir + "/srv/current/cert.pem", "ok"},
		step{"swap " + dir + "/srv/current ../releases/two", "ok"},
		step{"read " + dir + "/srv/current/cert.pem", "ok"},
		step{"swap " + dir + "/srv/current ../else", "ok"},
		step{"read " + dir + "/srv/current/cert.pem", "EACCES"},
	)
}

func TestSystemCertificatesElsewhere(t *testing.T) {
	needs(t, 1)
	dir := tree(t, "file/roots.pem", "dir/a.pem -> ../store/a.pem", "store/a.pem", "other/x", "cover/x")
	child(t, sandbox.Rules{}, []string{"SSL_CERT_FILE=" + dir + "/file/roots.pem", "SSL_CERT_DIR=" + dir + "/dir", "GOCOVERDIR=" + dir + "/cover"},
		step{"read " + dir + "/file/roots.pem", "ok"},
		step{"read " + dir + "/dir/a.pem", "ok"},
		step{"read " + dir + "/other/x", "EACCES"},
		step{"write " + dir + "/cover/y", "ok"},
	)
}

func TestPorts(t *testing.T) {
	needs(t, 4)
	open, closed, free := listen(t), listen(t), listen(t)
	free.Close()
	dir := tree(t, "other/x")
	rules := sandbox.Rules{
		Bind:    []string{fmt.Sprintf("127.0.0.1:%d", port(free)), "http://localhost:https", "systemd:web", ""},
		Connect: []string{fmt.Sprintf("http://u:p@127.0.0.1:%d/x", port(open)), "unix:/run/x", ""},
	}
	child(t, rules, nil,
		step{fmt.Sprintf("dial tcp:127.0.0.1:%d", port(open)), "ok"},
		step{fmt.Sprintf("dial tcp:127.0.0.1:%d", port(closed)), "EACCES"},
		step{"dial tcp:127.0.0.1:53", "ECONNREFUSED"},
		step{"dial tcp:127.0.0.1:80", "EACCES"},
		step{fmt.Sprintf("listen tcp:127.0.0.1:%d", port(free)), "ok"},
		step{"listen tcp:127.0.0.1:0", "EACCES"},
		step{"listen tcp:127.0.0.1:444", "EACCES"},
		step{"read " + dir + "/other/x", "EACCES"},
	)
}

// Gap 13: port 0, or a port by its name, made the whole sandbox disappear.
func TestGap13PortsByNameAndPortZeroKeepTheSandbox(t *testing.T) {
	needs(t, 4)
	closed := listen(t)
	dir := tree(t, "other/x")
	steps := []step{
		{fmt.Sprintf("dial tcp:127.0.0.1:%d", port(closed)), "EACCES"},
		{"dial tcp:127.0.0.1:80", "ECONNREFUSED"},
		{"read " + dir + "/other/x", "EACCES"},
	}
	child(t, sandbox.Rules{Bind: []string{"127.0.0.1:0"}, Connect: []string{"localhost:http"}}, nil, append(steps, step{"listen tcp:127.0.0.1:0", "ok"})...)
	child(t, sandbox.Rules{Bind: []string{"127.0.0.1:https"}, Connect: []string{"localhost:http"}}, nil, append(steps, step{"listen tcp:127.0.0.1:0", "EACCES"})...)
	log := child(t, sandbox.Rules{Bind: []string{"127.0.0.1:nosuchport"}, Connect: []string{"http://"}}, nil, append(steps, step{"listen tcp:127.0.0.1:0", "ok"})...)
	if !strings.Contains(log, "listening stays unrestricted") || !strings.Contains(log, "nosuchport") {
		t.Errorf("logged %s", log)
	}
	log = child(t, sandbox.Rules{Connect: []string{"http://u:s3cr3t@x:y"}, Bind: []string{"127.0.0.1:https"}}, nil,
		step{fmt.Sprintf("dial tcp:127.0.0.1:%d", port(closed)), "ok"}, step{"listen tcp:127.0.0.1:0", "EACCES"}, steps[2])
	if !strings.Contains(log, "connecting stays unrestricted") || strings.Contains(log, "s3cr3t") {
		t.Errorf("logged %s", log)
	}
	child(t, sandbox.Rules{AnyConnect: true}, nil, step{fmt.Sprintf("dial tcp:127.0.0.1:%d", port(closed)), "ok"}, step{"listen tcp:127.0.0.1:0", "EACCES"}, steps[2])
}

// Gap 23: the sandbox opened port 80 for an http:// proxy without a port, and 8080 was dialled.
func TestGap23ProxysDefaultPortIsOpen(t *testing.T) {
	needs(t, 4)
	refused := func(port string) step { return step{"dial tcp:127.0.0.1:" + port, "ECONNREFUSED"} }
	child(t, sandbox.Rules{Connect: []string{"http://u:p@proxy.test", "socks5h://proxy.test"}}, nil,
		refused("8080"), refused("80"), refused("1080"), step{"dial tcp:127.0.0.1:443", "EACCES"})
	child(t, sandbox.Rules{}, []string{"HTTPS_PROXY=proxy.test:3128", "http_proxy=socks5://proxy.test", "HTTP_PROXY=", "https_proxy="},
		refused("3128"), refused("1080"), step{"dial tcp:127.0.0.1:443", "EACCES"})
}

func TestUNIXSockets(t *testing.T) {
	needs(t, 1)
	dir := tree(t, "agent/x", "run/x", "other/x")
	l, err := net.Listen("unix", dir+"/agent/api.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rules := sandbox.Rules{Sockets: []string{dir + "/agent/api.sock"}, Bind: []string{"unix:" + dir + "/run/s"}}
	child(t, rules, nil,
		step{"dial unix:" + dir + "/agent/api.sock", "ok"},
		step{"dial unix:" + dir + "/agent/api.sock", "ok"},
		step{"listen unix:" + dir + "/run/s", "ok"},
		step{"listen unix:" + dir + "/other/s", "EACCES"},
		step{"remove " + dir + "/agent/x", "EACCES"},
	)
}

func TestAbstractSocketsAndSignals(t *testing.T) {
	needs(t, 7)
	l, err := net.Listen("unix", "") // the kernel chooses an abstract name
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := "dial unix:" + l.Addr().String()
	signal := step{fmt.Sprintf("signal %d", os.Getpid()), "EPERM"}
	child(t, sandbox.Rules{}, nil, step{dial, "EPERM"}, signal, step{"burn", "ok"})
	child(t, sandbox.Rules{Connect: []string{"unix:" + l.Addr().String()}}, nil, step{dial, "ok"}, signal)
	child(t, sandbox.Rules{}, []string{"NOTIFY_SOCKET=" + l.Addr().String()}, step{dial, "ok"}, signal)
}

func TestNoMemoryInDumps(t *testing.T) {
	own := step{"read /proc/self/status", "ok"}
	child(t, sandbox.Rules{}, nil, step{"dumpable 0", "ok"}, step{"coredumps 00000000", "ok"}, step{"nonewprivs", "ok"}, own, step{"list /proc/self/fd", "ok"})
	child(t, sandbox.Rules{Dumpable: true}, nil, step{"dumpable 1", "ok"}, step{"nonewprivs", "ok"}, own)
	// A spire-agent compares the owner of /proc/PID with the caller's.
	child(t, sandbox.Rules{Sockets: []string{"", "/run/agent/api.sock"}}, nil, step{"dumpable 1", "ok"}, step{"coredumps 00000000", "ok"}, own)
}

func TestMissing(t *testing.T) {
	needs(t, 4)
	dir := tree(t, "a/cert", "b/cert", "s/x", "w/x")
	has := sandbox.Rules{ReadFiles: []string{dir + "/a/cert"}, WriteDirs: []string{dir + "/w"}, Bind: []string{"127.0.0.1:1"}, Connect: []string{"127.0.0.1:2"}}
	for name, tt := range map[string]struct {
		next sandbox.Rules
		want []string
	}{
		"same":  {has, nil},
		"less":  {sandbox.Rules{}, nil},
		"below": {sandbox.Rules{ReadFiles: []string{dir + "/a/key", dir + "/w/key"}}, nil},
		"more": {sandbox.Rules{ReadFiles: []string{dir + "/b/cert"}, WriteDirs: []string{dir + "/a"}, Bind: []string{"127.0.0.1:3", "unix:" + dir + "/s/s"}, Connect: []string{"127.0.0.1:1"}},
			[]string{"write to " + dir + "/a", "read " + dir + "/b", "make a socket in " + dir + "/s", "listen on TCP port 3", "connect to TCP port 1"}},
		"any": {sandbox.Rules{Bind: []string{":0"}, AnyConnect: true}, []string{"listen on any TCP port", "connect to any TCP port"}},
	} {
		if diff := cmp.Diff(tt.want, has.Missing(tt.next)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if missing := (sandbox.Rules{Bind: []string{":0"}, AnyConnect: true}).Missing(sandbox.Rules{Bind: []string{":1"}, Connect: []string{"x:1"}}); missing != nil {
		t.Errorf("%q", missing)
	}
}
