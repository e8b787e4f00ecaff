package systemd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/integration/machine"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/systemd"
)

// TestHelperAttest is no test: inside the machine, it attests each PID that it
// reads, and prints the selectors as JSON.
func TestHelperAttest(t *testing.T) {
	if os.Getenv("LANYARD_TEST_ATTEST") == "" {
		t.Skip("run by other tests")
	}
	plugin := systemd.New(systemd.Config{})
	defer plugin.Close()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var pid int
		if err := in.Decode(&pid); err != nil {
			return
		}
		answer, err := attest(t, plugin, pid)
		if err != nil {
			answer = []string{"error: " + err.Error()}
		}
		if err := out.Encode(answer); err != nil {
			t.Fatal(err)
		}
	}
}

func attest(t *testing.T, plugin *systemd.Plugin, pid int) ([]string, error) {
	t.Helper()
	proc, err := workloadattest.Open(pid)
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	selectors, err := plugin.Attest(t.Context(), proc)
	return texts(selectors), err
}

func open(t *testing.T, pid int) *workloadattest.Process {
	t.Helper()
	proc, err := workloadattest.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	return proc
}

func texts(selectors []registration.Selector) []string {
	all := []string{}
	for _, s := range selectors {
		all = append(all, fmt.Sprintf("%s:%s", s.Type, s.Value))
	}
	slices.Sort(all)
	return all
}

const unitText = "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"

// A user's manager, in one unit, has processes in cgroups of its own below it.
const userUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=all
Delegate=yes
ExecStart=/bin/sh -c 'd=/sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup)/app.slice/editor.service; mkdir -p $$d && echo 0 >$$d/cgroup.procs && echo $$$$ >%s && systemd-notify --ready && exec sleep 1000'
`

// inside attests within the machine, where processes have the numbers that its
// systemd knows.
func inside(t *testing.T, m *machine.Machine) (ask func(pid string) []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.Command(self, "-test.run=^TestHelperAttest$")
	cmd.Env = append(os.Environ(), "LANYARD_TEST_ATTEST=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	answers := json.NewDecoder(stdout)
	return func(pid string) []string {
		t.Helper()
		if _, err := fmt.Fprintln(stdin, pid); err != nil {
			t.Fatal(err)
		}
		var answer []string
		if err := answers.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

// The selectors are those that the real systemd's own commands show, before and
// after it starts a unit anew, and after the message bus was away.
func TestSystemdUnitsAreAttested(t *testing.T) {
	m := machine.Boot(t, map[string]string{"web.service": unitText})
	show := func(property string) string { return m.Do(t, "systemctl", "show", "-P", property, "web.service") }
	want := func() []string {
		return []string{
			"systemd:fragment_path:" + m.Dir + "/units/web.service",
			"systemd:id:web.service",
			"systemd:invocation_id:" + show("InvocationID"),
		}
	}
	m.Do(t, "systemctl", "start", "web.service")
	ask := inside(t, m)
	first := ask(show("MainPID"))
	if diff := cmp.Diff(want(), first); diff != "" {
		t.Errorf("selectors (-want +got):\n%s", diff)
	}
	m.Do(t, "systemctl", "restart", "web.service")
	second := ask(show("MainPID"))
	if diff := cmp.Diff(want(), second); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if slices.Equal(first, second) {
		t.Error("the invocation is the same after a restart")
	}
	m.Do(t, "systemctl", "restart", "dbus.service")
	if diff := cmp.Diff(want(), ask(show("MainPID"))); diff != "" {
		t.Errorf("after the bus was restarted (-want +got):\n%s", diff)
	}
	m.Do(t, "systemctl", "daemon-reexec")
	if diff := cmp.Diff(want(), ask(show("MainPID"))); diff != "" {
		t.Errorf("after systemd was executed anew (-want +got):\n%s", diff)
	}
}

// A process of a user's manager belongs to that manager's unit; systemd's own
// first process to init.scope.
func TestSystemdUnitOfUserManagersAndOfItself(t *testing.T) {
	pidFile := fmt.Sprintf("%s/lanyard-user-%d.pid", os.TempDir(), os.Getpid())
	t.Cleanup(func() { os.Remove(pidFile) })
	m := machine.Boot(t, map[string]string{"user@.service": fmt.Sprintf(userUnit, pidFile)})
	ask := inside(t, m)
	if got := ask("1"); !slices.Contains(got, "systemd:id:init.scope") {
		t.Errorf("the first process: %q", got)
	}
	m.Do(t, "systemctl", "start", "user@1000.service")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	got := ask(strings.TrimSpace(string(pid)))
	if !slices.Contains(got, "systemd:id:user@1000.service") {
		t.Errorf("a process of a user's manager: %q", got)
	}
}
