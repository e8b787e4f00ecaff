package systemd_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/systemd"
)

const busConfig = `<busconfig>
  <listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>`

// startBus starts a message bus, the real one, and returns its socket.
func startBus(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	socket, config := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(strings.Replace(busConfig, "SOCKET", socket, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("systemd: dbus-daemon: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	return socket
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// manager answers as a service manager of version 253 does, which the machines of
// the other tests may be too old for.
type manager struct{ asked chan int }

func (m manager) GetUnitByPIDFD(fd dbus.UnixFD) (dbus.ObjectPath, string, []byte, *dbus.Error) {
	defer os.NewFile(uintptr(fd), "pidfd").Close()
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(fd)))
	if err != nil {
		return "", "", nil, dbus.MakeFailedError(err)
	}
	for line := range strings.Lines(string(info)) {
		if pid, ok := strings.CutPrefix(line, "Pid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(pid))
			m.asked <- n
		}
	}
	return "/org/freedesktop/systemd1/unit/web_2eservice", "web.service", make([]byte, 16), nil
}

type properties struct{ of map[string]any }

func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant(p.of[name]), nil
}

func TestSystemdIsAskedByPIDFD(t *testing.T) {
	socket := startBus(t)
	server, err := dbus.Connect("unix:path=" + socket)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m := manager{asked: make(chan int, 1)}
	id, _ := hex.DecodeString("0123456789abcdef0123456789abcdef")
	unit := properties{map[string]any{"Id": "web.service", "FragmentPath": "", "InvocationID": id}}
	for _, err := range []error{
		server.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
		server.Export(unit, "/org/freedesktop/systemd1/unit/web_2eservice", "org.freedesktop.DBus.Properties"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	plugin := systemd.New(systemd.Config{Socket: socket})
	defer plugin.Close()
	// The manager joins the bus after the agent, as it may when the bus starts anew.
	joined := time.AfterFunc(50*time.Millisecond, func() {
		_, _ = server.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue)
	})
	defer joined.Stop()
	got, err := attest(t, plugin, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"systemd:fragment_path:", "systemd:id:web.service", "systemd:invocation_id:0123456789abcdef0123456789abcdef"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("selectors (-want +got):\n%s", diff)
	}
	if pid := <-m.asked; pid != os.Getpid() {
		t.Errorf("asked about pid %d, want %d", pid, os.Getpid())
	}
}

// What does not answer is an error, soon: the other attestors' selectors count.
func TestSystemdBusThatIsAwayOrSilent(t *testing.T) {
	dir := shortDir(t)
	silent, err := unixsock.Listen(filepath.Join(dir, "silent"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	connected := make(chan net.Conn, 1)
	go func() {
		if conn, err := silent.Accept(); err == nil {
			connected <- conn
		}
	}()
	for name, socket := range map[string]string{"away": filepath.Join(dir, "none"), "silent": silent.Addr().String(), "no manager": startBus(t)} {
		t.Run(name, func(t *testing.T) {
			plugin := systemd.New(systemd.Config{Socket: socket})
			defer plugin.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			proc := open(t, os.Getpid())
			if selectors, err := plugin.Attest(ctx, proc); err == nil || selectors != nil {
				t.Errorf("%v, %v; want an error", selectors, err)
			}
		})
	}
	(<-connected).Close()
}
