package sidecar_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// asService makes this test binary a sidecar that systemd starts; its value is its only tunnel, as JSON.
const asService = "LANYARD_TEST_SIDECAR"

func TestMain(m *testing.M) {
	tunnel := os.Getenv(asService)
	if tunnel == "" {
		os.Exit(m.Run())
	}
	if err := service([]byte(tunnel)); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// service runs the tunnel until its standard input ends. A line on that takes the tunnel away, another one brings it back.
func service(tunnel []byte) error {
	var t sidecar.Tunnel
	if err := json.Unmarshal(tunnel, &t); err != nil {
		return err
	}
	other := t
	other.Name, other.Listen = "other", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ready := make(chan struct{})
	cfg := sidecar.Config{Tunnels: []sidecar.Tunnel{t, other}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Ready: func(sidecar.Addrs) { close(ready) }}
	s, err := sidecar.New(cfg)
	if err != nil {
		return err
	}
	go func() {
		defer stop()
		<-ready
		fmt.Println("ready")
		with := [][]sidecar.Tunnel{{other}, {t, other}}
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			cfg.Tunnels = with[0]
			with[0], with[1] = with[1], with[0]
			fmt.Println("reloaded", s.Reload(ctx, cfg))
		}
	}()
	return s.Run(ctx)
}

// A socket from systemd outlives the tunnels that use it: who connects while there is none is served by the next one.
func TestSystemdSocketOverReloads(t *testing.T) {
	ca := testca.New(t, "one.test")
	web, db := keptFiles{t.TempDir()}, keptFiles{t.TempDir()}
	web.svid(t, ca, webID)
	db.svid(t, ca, dbID)
	in := sidecar.Tunnel{Name: "in", Mode: sidecar.Server, Listen: "127.0.0.1:0", Target: backend(t, echo), Identity: db.svids(), Policy: policy.Config{AllowURIs: []string{webID}}}
	server := startMany(t, sidecar.Config{Tunnels: []sidecar.Tunnel{in}})

	path := filepath.Join(socketDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	defer l.Close()
	socket, err := l.File()
	check(t, err)
	defer socket.Close()
	tunnel, err := json.Marshal(sidecar.Tunnel{Name: "out", Mode: sidecar.Client, Listen: "systemd:app", Target: server.ready.Tunnels["in"].String(),
		Identity: web.svids(), Policy: policy.Config{AllowURIs: []string{dbID}}})
	check(t, err)
	exe, err := os.Executable()
	check(t, err)
	// systemd sets LISTEN_PID between fork and exec: so does a shell.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe)
	cmd.Env = append(os.Environ(), asService+"="+string(tunnel), "LISTEN_FDS=1", "LISTEN_FDNAMES=app")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log strings.Builder
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(stdout)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%q, want %q\n%s", lines.Text(), want, &log)
		}
	}
	connect := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", path)
		check(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	expect("ready")
	old := connect()
	exchange(t, old, "x")
	for range 3 {
		io.WriteString(stdin, "\n")
		expect("reloaded <nil>")
		exchange(t, old, "still here")
		early := connect()
		io.WriteString(stdin, "\n")
		expect("reloaded <nil>")
		exchange(t, early, "waited")
		early.Close()
	}
	old.Close()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file that is systemd's: %v", err)
	}
}
