package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/machine"
)

const agentUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=main
ExecStart=%s -test.run=^TestHelperAgent$
Environment=LANYARD_TEST_AGENT=%s
FileDescriptorStoreMax=16
Restart=always
RestartSec=0
WatchdogSec=1s
TimeoutStopSec=20
StandardOutput=append:%[2]s.log
StandardError=append:%[2]s.log
`

// TestHelperAgent is no test: it is the agent that systemd runs in the others. It
// answers with its PID.
func TestHelperAgent(t *testing.T) {
	path := os.Getenv("LANYARD_TEST_AGENT")
	if path == "" {
		t.Skip("run by other tests")
	}
	runHelper(t, Config{
		Specs:   []Spec{{Name: "workload", Path: path, Mode: 0o777, UID: -1, GID: -1}},
		DataDir: filepath.Dir(path),
	})
}

// service is a machine with the agent as a service, and its socket's path.
func service(t *testing.T, more map[string]string) (*machine.Machine, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shortDir(t), "s.sock")
	files := map[string]string{"agent.service": fmt.Sprintf(agentUnit, self, path)}
	for name, text := range more {
		files[name] = fmt.Sprintf(text, path)
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(path + ".log"); err == nil && t.Failed() {
			t.Logf("agent: %s", log)
		}
	})
	return machine.Boot(t, files), path
}

// hammer has two clients call as fast as they can, until finish.
func hammer(t *testing.T, call func() error) (finish func()) {
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := call(); err != nil {
					t.Errorf("a client was refused: %v", err)
					return
				}
			}
		})
	}
	return func() {
		close(stop)
		clients.Wait()
	}
}

// A restart by the real systemd: the file stays the same, and of those who
// connect meanwhile nobody is refused.
func TestSystemdKeepsSocketsOverARestart(t *testing.T) {
	m, path := service(t, nil)
	m.Do(t, "systemctl", "start", "agent.service")
	first, err := ask(path)
	if err != nil {
		t.Fatal(err)
	}
	was, err := fileAt(path)
	if err != nil {
		t.Fatal(err)
	}
	finish := hammer(t, func() error { _, err := ask(path); return err })
	m.Do(t, "systemctl", "restart", "agent.service")
	second, err := ask(path)
	if err != nil || second == first {
		t.Errorf("after the restart pid %q answers (%v), before it %q", second, err, first)
	}
	finish()
	// Killed, it can't end what it has begun; but who connects is not refused.
	finish = hammer(t, func() error {
		_, err := ask(path)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return err
		}
		return nil
	})
	m.Do(t, "systemctl", "kill", "-s", "KILL", "agent.service")
	eventually(t, "another answers", func() bool { third, err := ask(path); return err == nil && third != second })
	finish()
	if now, err := fileAt(path); err != nil || now != was {
		t.Errorf("the file is another now: %v", err)
	}
	if n := m.Do(t, "systemctl", "show", "-P", "NFileDescriptorStore", "agent.service"); n != "1" {
		t.Errorf("systemd stores %s sockets, want 1", n)
	}
	if text := m.Do(t, "systemctl", "show", "-P", "StatusText", "agent.service"); !strings.HasSuffix(text, "serves") {
		t.Errorf("status %q", text)
	}
	// Deleted while it runs: what is stored is the new one, and the old.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bound anew", func() bool { _, err := ask(path); return err == nil })
	was, err = fileAt(path)
	if err != nil {
		t.Fatal(err)
	}
	m.Do(t, "systemctl", "restart", "agent.service")
	if now, err := fileAt(path); err != nil || now != was {
		t.Errorf("the file that was bound anew did not stay: %v", err)
	}
	if _, err := ask(path); err != nil {
		t.Error(err)
	}
	// After stop and start nothing is left of the old ones.
	m.Do(t, "systemctl", "stop", "agent.service")
	m.Do(t, "systemctl", "start", "agent.service")
	if _, err := ask(path); err != nil {
		t.Error(err)
	}
}

// A socket unit: systemd listens from boot on, and starts the agent for the first
// who connects.
func TestSystemdSocketActivation(t *testing.T) {
	m, path := service(t, map[string]string{"agent.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%s\nSocketMode=0777\nFileDescriptorName=workload\n"})
	m.Do(t, "systemctl", "start", "agent.socket")
	was, err := fileAt(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := ask(path)
	if err != nil {
		t.Fatal(err)
	}
	if main := m.Do(t, "systemctl", "show", "-P", "MainPID", "agent.service"); pid != main {
		t.Errorf("pid %s answers, the service's is %s", pid, main)
	}
	m.Do(t, "systemctl", "stop", "agent.service")
	if now, err := fileAt(path); err != nil || now != was {
		t.Errorf("systemd's own file is gone: %v", err)
	}
	if _, err := ask(path); err != nil { // starts it again
		t.Error(err)
	}
}

// The watchdog is told, so the agent outlives several times its interval; one
// that hangs is killed and started anew.
func TestSystemdWatchdog(t *testing.T) {
	m, path := service(t, nil)
	m.Do(t, "systemctl", "start", "agent.service")
	told := func() string {
		return m.Do(t, "systemctl", "show", "-P", "WatchdogTimestampMonotonic", "agent.service")
	}
	first := told()
	eventually(t, "told again", func() bool { return told() != first })
	m.Do(t, "systemctl", "kill", "-s", "STOP", "agent.service")
	eventually(t, "started anew", func() bool {
		return m.Do(t, "systemctl", "show", "-P", "NRestarts", "agent.service") == "1"
	})
	if _, err := ask(path); err != nil {
		t.Error(err)
	}
}
