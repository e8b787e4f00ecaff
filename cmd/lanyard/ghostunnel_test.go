package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// started stands for the exit code of a command line that is taken: the tunnel listens.
const started = -1

// commandLine is one that both programs are given, after their names.
type commandLine struct {
	args string // split at spaces; $X is expanded
	env  string // NAME=VALUE, more after spaces
	want int    // what both do
	ours int    // what Lanyard does instead, if why says that it differs
	why  string
}

// srv and cli are what the rest of a command line is about.
const (
	srv   = " server --listen=$LISTEN --target=127.0.0.1:1"
	cli0  = " client --listen=$LISTEN --target=127.0.0.1:1"
	files = " --cert=cert.pem --key=key.pem --cacert=ca.pem"
	all   = " --allow-all"
)

func commandLines() []commandLine {
	var lines []commandLine
	add := func(want int, all ...string) {
		for _, args := range all {
			lines = append(lines, commandLine{args: args, want: want})
		}
	}
	with := func(env string, want int, args string) {
		lines = append(lines, commandLine{args: args, env: env, want: want})
	}
	differ := func(want, ours int, why, env, args string) {
		lines = append(lines, commandLine{args: args, env: env, want: want, ours: ours, why: why})
	}

	// Grammar.
	add(0, "", "--help", "--help-long", "--help-man", "--version", "server --help", "client --help", "server --version", "help", "help server",
		"--status=127.0.0.1:0", "--no-syslog")
	add(1, "help nosuch", "service install", "serve", "-x", "--bogus", "server --help --bogus", "server", "client", "server --listen=x",
		files+srv+all+" extra", files+srv+all+" -- extra", "--listen=x server", files+srv+all+" --listen=$LISTEN", files+" --cacert=ca.pem"+srv+all,
		files+srv+all+" --no-allow-all", files+srv+" --no-listen", files+srv+" --allow-cn", files+srv+" --allow-cn --allow-all", "@nosuch"+srv, "@",
		"--connect-timeout=5"+files+srv+all, "--connect-timeout -1s"+files+srv+all, "--max-concurrent-conns=-1"+files+srv+all,
		"--max-concurrent-conns=4294967296"+files+srv+all, "--keychain-identity=x"+srv+all, "--eventlog"+files+srv+all, "--help-bogus")
	add(started, files+srv+all, srv[1:]+all+files, files+srv+all+" --no-unsafe-target", "@args"+srv+all, srv[1:]+all+" @args",
		files+srv+" --allow-cn a --allow-cn=b --allow-uri=spiffe://a/b", files+srv+" --allow-uri-san=spiffe://a/b --allow-dns-san=x --allow-ip-san=127.0.0.1",
		files+srv+all+" --", "--use-landlock --disable-landlock"+files+srv+all, "--quiet=conns --quiet=conn-errs --quiet= --quiet=handshake-errs"+files+srv+all)

	// Validation at parse time.
	add(1, "--enable-pprof"+files+srv+all, "--enable-shutdown"+files+srv+all, "--metrics-url=ftp://x"+files+srv+all, files+srv+all+" --target-status=ftp://x",
		"--status=nowhere"+files+srv+all, "--status=https://unix:s.sock"+files+srv+all, "--connect-timeout=0s"+files+srv+all,
		"--use-workload-api-timeout=-1s"+files+srv+all, "--quiet=some"+files+srv+all, "--quiet=conns,conn-errs"+files+srv+all,
		"--metrics-graphite=nowhere"+files+srv+all, files+srv+" --allow-ip=nowhere", files+cli0+" --proxy=::", files+srv+all+" --proxy-protocol-mode=v1")
	differ(1, 0, "without a command there is help, whatever the flags", "", "--enable-pprof")
	add(started, "--status=127.0.0.1:0 --enable-pprof --enable-shutdown"+files+srv+all, "--status=http://127.0.0.1:0"+files+srv+all,
		"--status=unix:status.sock"+files+srv+all, "--metrics-interval=1m --metrics-prefix=x"+files+srv+all)

	// Identity.
	add(1, srv[1:]+all, "--cert=cert.pem"+srv+all, "--key=key.pem"+srv+all, "--keystore=store.pem"+files+srv+all, "--keystore=nosuch"+srv+all,
		"--cert=nosuch --key=key.pem"+srv+all, "--cert=cert.pem --key=nosuch"+srv+all, "--cert=cert.pem --key=key.pem --cacert=nosuch"+srv+all,
		"--use-workload-api-addr=unix:///nosuch"+files+srv+all, files+srv+all+" --auto-acme-cert=a.example",
		srv[1:]+all+" --auto-acme-cert=a.example", srv[1:]+all+" --auto-acme-cert=a.example --auto-acme-email=x@a.example", cli0[1:],
		files+cli0+" --disable-authentication", "--pkcs11-module=/nosuch"+files+srv+all)
	add(started, "--keystore=store.pem --cacert=ca.pem"+srv+all, "--cacert=ca.pem"+cli0+" --disable-authentication", files+cli0)
	with("KEYSTORE_PATH=store.pem", started, srv[1:]+all)
	with("CERT_PATH=cert.pem KEY_PATH=key.pem CACERT_PATH=ca.pem", started, srv[1:]+all)
	with("KEYSTORE_PATH=store.pem", 1, files+srv+all)
	with("CERT_PATH=cert.pem", 1, srv[1:]+all)
	with("KEYSTORE_PATH=", started, files+srv+all)
	differ(1, started, "the files given are taken, and the log says so", "SPIFFE_ENDPOINT_SOCKET=unix:///nosuch", files+srv+all)

	// Who may.
	add(1, files+srv, files+srv+all+" --allow-cn=a", files+srv+all+" --disable-authentication", files+srv+" --disable-authentication --allow-uri=spiffe://a/b",
		files+srv+" --allow-spki-pin=$PIN --allow-cn=a", files+srv+all+" --allow-spki-pin=$PIN", files+srv+" --allow-spki-pin=md5:AAAA",
		files+srv+" --allow-spki-pin=sha256:AAAA", files+srv+" --allow-uri=spiffe://a/b*", files+srv+" --allow-uri=spiffe://a/**/b", files+srv+" --allow-uri=",
		files+srv+" --allow-policy=policy.rego", files+srv+" --allow-query=data.policy.allow", files+srv+" --allow-policy=nosuch.rego --allow-query=data.policy.allow",
		files+cli0+" --verify-spki-pin=$PIN --verify-cn=a", files+cli0+" --verify-policy=policy.rego", files+cli0+" --verify-query=x", files+cli0+" --verify-uri=*b")
	add(started, files+srv+" --disable-authentication", files+srv+" --allow-spki-pin=$PIN", files+srv+" --allow-spki-pin=SHA256:$PIN256", files+srv+" --allow-uri=**",
		files+srv+" --allow-uri=spiffe://a/*/b/**", files+srv+" --allow-uri=spiffe://a/b/", files+srv+" --allow-dns=a --allow-ou=b --allow-ip=::1",
		files+srv+" --allow-policy=policy.rego --allow-query=data.policy.allow", files+srv+" --allow-policy=policy.rego --allow-query=data.policy.allow --allow-cn=a",
		files+cli0+" --verify-cn=a --verify-uri=spiffe://a/b", files+cli0+" --verify-spki-pin=$PIN", "--cacert=ca.pem"+cli0+" --disable-authentication --verify-spki-pin=$PIN")
	differ(started, 1, "an empty name admits every certificate without one (gap 11)", "", files+srv+" --allow-cn=")

	// Addresses.
	add(1, files+" server --listen=$LISTEN --target=10.0.0.1:80"+all, files+" server --listen=$LISTEN --target=127.0.0.2:80"+all,
		files+" server --listen=$LISTEN --target=LOCALHOST:80"+all, files+" server --listen=$LISTEN --target=nowhere"+all,
		files+" server --listen=$LISTEN --target=systemd:x"+all, files+" server --listen=$LISTEN --target=launchd:x"+all,
		files+" server --listen=$LISTEN --target=systemd:x --unsafe-target"+all, files+" server --listen=nowhere --target=127.0.0.1:1"+all,
		files+" server --listen=systemd:x --target=127.0.0.1:1"+all, files+" server --listen=launchd:x --target=127.0.0.1:1"+all,
		files+" client --listen=0.0.0.0:0 --target=127.0.0.1:1", files+" client --listen=$LISTEN --target=unix:x", files+" client --listen=$LISTEN --target=systemd:x",
		files+" client --listen=$LISTEN --target=nowhere", files+" server --listen=$LISTEN --target=nosuch.invalid:1 --unsafe-target"+all,
		files+cli0+" --proxy=ftp://127.0.0.1:1", files+cli0+" --proxy=https://127.0.0.1:1", files+srv+all+" --proxy-protocol --proxy-protocol-mode=tls")
	add(started, files+" server --listen=unix:l.sock --target=unix:t.sock"+all, files+" server --listen=$LISTEN --target=localhost:1"+all,
		files+" server --listen=$LISTEN --target=[::1]:1"+all, files+" server --listen=$LISTEN --target=127.0.0.2:1 --unsafe-target"+all,
		"--skip-resolve"+files+" server --listen=$LISTEN --target=nosuch.invalid:1 --unsafe-target"+all, files+" client --listen=unix:l.sock --target=127.0.0.1:1",
		files+cli0+" --unsafe-listen --override-server-name=x", files+cli0+" --proxy=http://127.0.0.1:1", files+cli0+" --connect-proxy=socks5://127.0.0.1:1",
		files+" client --listen=$LISTEN --target=nosuch.invalid:1 --proxy=socks5h://127.0.0.1:1", files+srv+all+" --proxy-protocol", files+srv+all+" --proxy-protocol-mode=tls-full",
		files+srv+all+" --target-status=http://x/healthz")

	// TLS and times.
	add(1, "--cipher-suites=RC4"+files+srv+all, "--cipher-suites="+files+srv+all, "--cipher-suites=AES,UNSAFE-AZURE"+files+srv+all, "--max-tls-version=TLS1.1"+files+srv+all)
	add(started, "--cipher-suites=CHACHA"+files+srv+all, "--cipher-suites=AES,UNSAFE-AZURE --allow-unsafe-cipher-suites"+files+srv+all, "--max-tls-version=tls1.2"+files+srv+all,
		"--max-tls-version=TLS1.3"+files+cli0, "--timed-reload=1h --shutdown-timeout=1s --connect-timeout=1s --close-timeout=0s --max-conn-lifetime=1h --max-concurrent-conns=10"+files+srv+all)
	return lines
}

// TestGhostunnelCommandLines gives the command lines to Lanyard by ghostunnel's name.
func TestGhostunnelCommandLines(t *testing.T) {
	dir := peerFiles(t)
	ours := filepath.Join(dir, "ghostunnel")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, ours); err != nil {
		t.Fatal(err)
	}
	for _, line := range commandLines() {
		want := line.want
		if line.why != "" {
			want = line.ours
		}
		t.Run(line.name(), func(t *testing.T) { line.check(t, ours, dir, want) })
	}
}

// TestInteropGhostunnelCommandLines gives them to ghostunnel: both take a line, or both refuse it with the same exit code, but for
// those lines that say why not.
func TestInteropGhostunnelCommandLines(t *testing.T) {
	theirs := filepath.Join(os.Getenv("LANYARD_PEERS"), "ghostunnel")
	if _, err := os.Stat(theirs); os.Getenv("LANYARD_PEERS") == "" || err != nil {
		t.Skip("no ghostunnel in $LANYARD_PEERS")
	}
	dir := peerFiles(t)
	for _, line := range commandLines() {
		t.Run(line.name(), func(t *testing.T) { line.check(t, theirs, dir, line.want) })
	}
}

func (l commandLine) name() string {
	return strings.NewReplacer("/", "_", " ", "_").Replace(strings.TrimSpace(l.env + " " + l.args))
}

func (l commandLine) check(t *testing.T, program, dir string, want int) {
	t.Helper()
	if got, out := l.run(t, program, dir); got != want {
		t.Errorf("%s, want %s\n%s", outcome(got), outcome(want), out)
	}
}

func outcome(code int) string {
	if code == started {
		return "started"
	}
	return fmt.Sprintf("exit code %d", code)
}

// peerFiles makes what the command lines name, in a directory with a short path: sockets are made there.
func peerFiles(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"policy.rego": []byte("package policy\n\nimport input\n\ndefault allow = false\n\nallow { input.certificate.Subject.CommonName == \"a\" }\n"),
		"args":        []byte("# identity\n--cert=cert.pem\n\n--key=key.pem\n--cacert=ca.pem\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run starts the program until it exits or listens, and ends it then. It gives the exit code, or started.
func (l commandLine) run(t *testing.T, program, dir string) (code int, output string) {
	t.Helper()
	args := strings.Fields(os.Expand(l.args, func(name string) string {
		return map[string]string{"LISTEN": "127.0.0.1:0", "PIN": "sha256:" + pin256, "PIN256": pin256}[name]
	}))
	for _, socket := range []string{"l.sock", "status.sock"} { // ghostunnel leaves some behind
		os.Remove(filepath.Join(dir, socket))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, strings.Fields(l.env)...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var all strings.Builder
	listens := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		if strings.Contains(lines.Text(), "listening") && !listens && len(args) > 0 && !strings.Contains(lines.Text(), "--listen") {
			listens = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
		}
	}
	_, _ = io.Copy(io.Discard, r)
	err = cmd.Wait()
	exit, isExit := errors.AsType[*exec.ExitError](err)
	switch {
	case listens && err == nil:
		return started, all.String()
	case err == nil:
		return 0, all.String()
	case isExit:
		return exit.ExitCode(), all.String()
	}
	t.Fatal(err)
	return 0, ""
}

// pin256 is the hash of nobody's key.
const pin256 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
