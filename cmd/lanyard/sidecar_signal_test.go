package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// TestGap24NothingIsWaitedForAtTheStart: without a Workload API the port takes connections, health is told, and a signal ends it or
// is ignored, as it should be.
func TestGap24NothingIsWaitedForAtTheStart(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir, nil, "ghostunnel", "server", "--listen=unix:in.sock", "--target=unix:app.sock", "--use-workload-api-addr=unix:///nosuch.sock",
		"--allow-all", "--status=unix:status.sock", "--connect-timeout=300ms")
	p.saw("msg=listening", 1)
	dialUnix(t, filepath.Join(dir, "in.sock"))
	for s := (status{}); s.Message != "listening"; { // it is so shortly after
		if s = readStatus(t, filepath.Join(dir, "status.sock")); s.OK || t.Failed() {
			t.Fatalf("%+v", s)
		}
	}
	p.signal(syscall.SIGHUP)
	p.saw("msg=reloaded", 1)
	p.signal(syscall.SIGTERM)
	p.end(0)
}

// TestGap24EarlyHangupDoesNotKill sends the signal as early as it can.
func TestGap24EarlyHangupDoesNotKill(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	// The signal comes while the command line is read: its last part is in a pipe that is filled late.
	fifo := filepath.Join(dir, "args")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, nil, "ghostunnel", "server", "--listen=unix:in.sock", "--target=unix:app.sock", "@args")
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns once the other end reads
	if err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	fmt.Fprint(w, "--cert=cert.pem\n--key=key.pem\n--cacert=ca.pem\n--allow-all\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.saw("msg=listening", 1)
	p.signal(syscall.SIGTERM)
	p.end(0)
}

// TestGap24TimeoutOfTheFirstIdentity: given explicitly, it ends the process that gets none; ghostunnel's default of 10 minutes doesn't.
func TestGap24TimeoutOfTheFirstIdentity(t *testing.T) {
	p := start(t, shortDir(t), nil, "ghostunnel", "server", "--listen=unix:in.sock", "--target=unix:app.sock", "--use-workload-api-addr=unix:///nosuch.sock",
		"--allow-all", "--use-workload-api-timeout=50ms")
	p.saw("msg=listening", 1)
	p.end(1)
	if !strings.Contains(p.text(), "error: ") {
		t.Errorf("it says nothing: %s", p.text())
	}
}

// TestGap25SecondSignalSaysSo: the first SIGTERM waits for a connection that is not done, a second one ends the process at once.
func TestGap25SecondSignalSaysSo(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir, nil, "ghostunnel", "server", "--listen=unix:in.sock", "--target=unix:app.sock", "--use-workload-api-addr=unix:///nosuch.sock",
		"--allow-all", "--connect-timeout=1h", "--drain-idle=0")
	p.saw("msg=listening", 1)
	dialUnix(t, filepath.Join(dir, "in.sock"))
	p.signal(syscall.SIGTERM)
	p.saw("shutting down", 1)
	p.signal(syscall.SIGHUP) // ignored meanwhile
	p.signal(syscall.SIGTERM)
	p.saw("second terminated: stopping at once", 1)
	p.end(1)
}

// TestTimedReloadReadsFilesAgain: every so often, and what is broken leaves the old in use.
func TestTimedReloadReadsFilesAgain(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, nil, "ghostunnel", "--timed-reload=50ms", "--cert=cert.pem", "--key=key.pem", "--cacert=ca.pem", "--status=http://127.0.0.1:0",
		"server", "--listen=unix:in.sock", "--target=unix:app.sock", "--allow-all")
	p.saw("msg=reloaded", 2)
	write(t, filepath.Join(dir, "cert.pem"), "nothing")
	p.saw("what was there stays in use", 1)
	p.saw("cert.pem", 1)
	p.signal(syscall.SIGTERM)
	p.end(0)
}

// TestGap12ProxyPasswordIsNotLogged: neither when it is used nor when its URL is wrong.
func TestGap12ProxyPasswordIsNotLogged(t *testing.T) {
	dir := shortDir(t)
	if err := writeCerts(t, dir, testca.New(t, "a"), "spiffe://a/b"); err != nil {
		t.Fatal(err)
	}
	args := []string{"client", "--cert=cert.pem", "--key=key.pem", "--cacert=ca.pem", "--listen=unix:in.sock", "--target=a.invalid:1", "--log-level=debug",
		"--connect-timeout=1s"}
	p := start(t, dir, nil, "ghostunnel", append(args, "--proxy=socks5h://me:s3cret@127.0.0.1:1")...)
	p.saw("msg=listening", 1)
	c := dialUnix(t, filepath.Join(dir, "in.sock"))
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("an answer from nobody")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the connection was not ended")
	}
	p.signal(syscall.SIGTERM)
	p.end(0)
	for _, wrong := range []string{"--proxy=ftp://me:s3cret@127.0.0.1:1", "--proxy=http://me:s3cret@", "--proxy=http://me:s3cret@127.0.0.1:x", "--proxy=://me:s3cret@x"} {
		bad := start(t, dir, nil, "ghostunnel", append(args, wrong)...)
		bad.end(1)
		if strings.Contains(bad.text(), "s3cret") || !strings.Contains(bad.text(), "--proxy") {
			t.Errorf("%s: %s", wrong, bad.text())
		}
	}
	if strings.Contains(p.text(), "s3cret") {
		t.Error("the password is in the log")
	}
	// Neither are those of keystores and tokens.
	for _, vars := range [][]string{{"KEYSTORE_PASS=s3cret", "KEYSTORE_PATH=store.pem"}, {"PKCS11_PIN=s3cret", "PKCS11_MODULE=/nosuch"}} {
		bad := start(t, dir, vars, "ghostunnel", append(args, "--allow-all", "--verify-cn=")...)
		bad.end(1)
		if strings.Contains(bad.text(), "s3cret") {
			t.Errorf("%v: %s", vars, bad.text())
		}
	}
}
