// Package machine boots a real systemd, with a real message bus, as the first
// process of namespaces of its own, so that tests are run by what will run the
// agent. It needs root, Linux and Debian's packages systemd and dbus; a test is
// skipped by name without. It runs no unit of the machine's.
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/cgroup"
)

// Machine is a booted systemd.
type Machine struct {
	// Dir is a directory of the test that both sides see under this path. It is
	// short: sockets fit into it.
	Dir string
	pid int
}

const systemd = "/usr/lib/systemd/systemd"

// boot.target is what is started: nothing but a message bus, when it is asked for.
var units = map[string]string{
	"boot.target":     "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\nAllowIsolate=yes\n",
	"sysinit.target":  "[Unit]\nDefaultDependencies=no\n",
	"basic.target":    "[Unit]\nDefaultDependencies=no\n",
	"sockets.target":  "[Unit]\nDefaultDependencies=no\n",
	"shutdown.target": "[Unit]\nDefaultDependencies=no\n",
	"dbus.socket":     "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
	"dbus.service": "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n" +
		"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
}

// As the first process of its PID namespace, it moves to a cgroup that is the
// root of a cgroup namespace, and sees but that. Systemd writes to neither the
// machine's /run and /var/lib nor its kernel's settings.
const script = `set -eu
echo 0 >"$CGROUP/cgroup.procs"
exec unshare --cgroup sh -euc '
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc none /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs none /run
mkdir /run/dbus /run/lock
mount -t tmpfs none /var/log
mount -t tmpfs none /var/lib
cd /
exec env -i container=lanyard-test PATH=/usr/sbin:/usr/bin:/sbin:/bin NOTIFY_SOCKET="$NOTIFY" \
	SYSTEMD_UNIT_PATH="$DIR/units" SYSTEMD_GENERATOR_PATH="$DIR/none" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$DIR/none" \
	` + systemd + ` --system --unit=boot.target --show-status=no --log-target=null
'`

// Boot boots a machine with the units of the files, by name, beside its own. It
// is gone when the test ends.
func Boot(t *testing.T, files map[string]string) *Machine {
	t.Helper()
	cgroup := need(t)
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &Machine{Dir: dir}
	for _, set := range []map[string]string{units, files} {
		for name, text := range set {
			m.Unit(t, name, text)
		}
	}
	cgroup = filepath.Join(cgroup, "lanyard-test-"+filepath.Base(dir))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Skipf("systemd: no cgroup can be made: %v", err)
	}
	t.Cleanup(func() { removeCgroup(t, cgroup) })
	booted, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "booted"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer booted.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "CGROUP="+cgroup, "DIR="+dir, "NOTIFY="+booted.LocalAddr().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Setsid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Skipf("systemd: no namespaces: %v", err)
	}
	m.pid = cmd.Process.Pid
	t.Cleanup(func() {
		// Whatever it runs ends with the first process of the namespace.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && output.Len() > 0 {
			t.Logf("systemd: %s", &output)
		}
	})
	if err := waitReady(booted); err != nil {
		t.Fatalf("systemd has not booted: %v", err)
	}
	return m
}

// waitReady waits until systemd says, as it does in a container, that it is up.
func waitReady(l *net.UnixConn) error {
	buf := make([]byte, 4096)
	for {
		if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		n, err := l.Read(buf)
		if err != nil {
			return err
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return nil
		}
	}
}

// need skips the test where it can't be run, and returns where cgroup v2 is.
func need(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("systemd: needs root")
	}
	for _, file := range []string{systemd, "/usr/bin/dbus-daemon"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("systemd: %v", err)
		}
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
				return dir
			}
		}
	}
	t.Skip("systemd: no cgroup v2")
	return ""
}

// removeCgroup removes a cgroup and those below it, as soon as the last process
// in them is gone.
func removeCgroup(t *testing.T, root string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := cgroup.Remove(root)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("cgroup %s stays: %v", root, err)
			return
		}
	}
}

// Unit writes a unit's file; [Machine.Do] "systemctl daemon-reload" after Boot.
func (m *Machine) Unit(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(m.Dir, "units", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Command is a command inside the machine.
func (m *Machine) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(m.pid), "-m", "-p", "-C", "--", name}, args...)...)
}

// Do runs a command inside the machine and returns what it prints, without the
// last line's end; the test fails with it.
func (m *Machine) Do(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}
