package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
	"github.com/lanyard-mtls/lanyard/integration/machine"
)

const (
	serviceSocket = "/run/lanyard/agent/public/api.sock"

	// A drop-in file says where the binaries are; all else of the unit is as it is shipped.
	dropIn = `[Service]
ExecStart=
ExecStart=%[1]s/lanyard agent run -config %[2]s/agent.conf%[3]s
BindReadOnlyPaths=%[1]s
BindPaths=%[2]s
StandardOutput=append:%[2]s/agent.log
StandardError=append:%[2]s/agent.log
[Unit]
DefaultDependencies=no
`
	// web is a service whose SVIDs are printed as they come.
	web = `[Unit]
DefaultDependencies=no
[Service]
Type=exec
User=nobody
ExecStart=%[1]s/lanyard agent api watch -socketPath ` + serviceSocket + `
StandardOutput=append:%[2]s/web.log
StandardError=append:%[2]s/web.log
`
)

// systemdAgent is an agent that the real systemd runs by the unit in configs/.
type systemdAgent struct {
	*machine.Machine
	issuer *harness.Issuer
	dir    string
}

func newSystemdAgent(t *testing.T) *systemdAgent {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join("..", "configs", "systemd", "lanyard-agent.service"))
	if err != nil {
		t.Fatal(err)
	}
	s := harness.NewStage(t, bin)
	a := &systemdAgent{dir: s.Dir}
	// Before the issuer: where there is no systemd, there is nothing to do.
	a.Machine = machine.Boot(t, map[string]string{
		"lanyard-agent.service": string(unit), "web.service": fmt.Sprintf(web, bin, a.dir), "other.service": fmt.Sprintf(web, bin, a.dir+"/other"),
	})
	a.issuer = harness.StartIssuer(s, harness.IssuerSpec{})
	host, port, err := net.SplitHostPort(a.issuer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.WriteFile("agent.conf", fmt.Sprintf(`agent {
  trust_domain      = %q
  server_address    = %q
  server_port       = %s
  trust_bundle_path = %q
  socket_path       = %q
  data_dir          = "/var/lib/lanyard/agent"
}
plugins {
  KeyManager "disk" { plugin_data { directory = "/var/lib/lanyard/agent" } }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "systemd" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`, a.issuer.TrustDomain, host, port, a.issuer.BundleFile(), serviceSocket))
	s.Path("other", "x")
	a.Unit(t, "lanyard-agent.service.d/test.conf", fmt.Sprintf(dropIn, bin, a.dir, " -joinToken "+a.issuer.Token(a.issuer.ID("/node"))))
	a.Do(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		if log, err := os.ReadFile(a.dir + "/agent.log"); err == nil && t.Failed() {
			t.Logf("agent: %s", log)
		}
	})
	return a
}

// prints waits until a file has the text so many times.
func (a *systemdAgent) prints(t *testing.T, file, text string, times int) {
	t.Helper()
	err := harness.Until(t.Context(), fetchLimit, text+" in "+file, func(context.Context) error {
		log, err := os.ReadFile(filepath.Join(a.dir, file))
		if n := strings.Count(string(log), text); err == nil && n < times {
			err = fmt.Errorf("it is there %d times: %s", n, log)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The unit as it is shipped, with all it takes from the agent, lets it attest services of other users; restarts keep the
// socket's file, and the services' SVIDs.
func TestSystemdRunsTheAgent(t *testing.T) {
	t.Parallel()
	a := newSystemdAgent(t)
	a.issuer.Admin("entry", "create", "-parentID", a.issuer.ID("/node"), "-spiffeID", a.issuer.ID("/web"),
		"-selector", "systemd:id:web.service", "-selector", "unix:user:nobody", "-selector", "unix:path:"+bin+"/lanyard")
	a.Do(t, "systemctl", "start", "lanyard-agent.service")
	file := func() string { return a.Do(t, "stat", "-c", "%d %i", serviceSocket) }
	was := file()
	a.Do(t, "systemctl", "start", "web.service")
	a.prints(t, "web.log", a.issuer.ID("/web"), 1)
	a.Do(t, "systemctl", "start", "other.service")
	a.prints(t, "other/web.log", "no identity issued", 1)

	pid := a.Do(t, "systemctl", "show", "-P", "MainPID", "lanyard-agent.service")
	a.Do(t, "systemctl", "restart", "lanyard-agent.service")
	if now := a.Do(t, "systemctl", "show", "-P", "MainPID", "lanyard-agent.service"); now == pid {
		t.Errorf("pid %s before the restart and after", pid)
	}
	if now := file(); now != was {
		t.Errorf("the socket's file is %s after the restart, before %s", now, was)
	}
	a.prints(t, "web.log", a.issuer.ID("/web"), 2)
	err := harness.Until(t.Context(), fetchLimit, "the agent to tell systemd how it is", func(context.Context) error {
		if status := a.Do(t, "systemctl", "show", "-P", "StatusText", "lanyard-agent.service"); !strings.Contains(status, "in sync") {
			return fmt.Errorf("it says %q", status)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
