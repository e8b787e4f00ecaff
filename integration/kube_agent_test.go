package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// podAgent is an agent that runs as if it was in a pod: its token is a file.
type podAgent struct {
	issuer  *harness.Issuer
	tool    harness.Tool
	name    string
	socket  string
	token   string // the file
	process *harness.Process
}

// agentInPod prepares an agent; spire is a real spire-agent, or ours if empty.
func agentInPod(issuer *harness.Issuer, spire string) *podAgent {
	a := &podAgent{issuer: issuer, tool: harness.Tool{Path: issuer.Bin + "/lanyard", Prefix: []string{"agent"}}, name: issuer.Unique("agent")}
	if spire != "" {
		a.tool = harness.Tool{Path: spire}
	}
	a.socket = issuer.Path(a.name, "s", "a.sock")
	a.token = issuer.Path(a.name, "token")
	return a
}

// start starts the agent with a token, on a fresh state if fresh, and waits for nothing.
func (a *podAgent) start(t *testing.T, token string, fresh bool) {
	t.Helper()
	s := a.issuer.Stage
	if fresh {
		if err := os.RemoveAll(s.Path(a.name, "data")); err != nil {
			t.Fatal(err)
		}
	}
	s.WriteFile(a.name+"/token", token)
	host, port, err := net.SplitHostPort(a.issuer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := s.WriteFile(a.name+"/agent.conf", fmt.Sprintf(`agent {
  trust_domain      = %q
  server_address    = %q
  server_port       = %s
  socket_path       = %q
  data_dir          = %q
  trust_bundle_path = %q
  log_level         = "DEBUG"
}
plugins {
  KeyManager "disk" { plugin_data { directory = %q } }
  NodeAttestor "k8s_psat" { plugin_data { cluster = "prod" token_path = %q } }
  WorkloadAttestor "unix" { plugin_data {} }
}
`, a.issuer.TrustDomain, host, port, a.socket, s.Path(a.name, "data"), a.issuer.BundleFile(), s.Path(a.name, "data"), a.token))
	a.process = s.Start(a.name, a.tool.Path, append(append([]string{}, a.tool.Prefix...), "run", "-config", conf)...)
}

// stop stops the agent.
func (a *podAgent) stop(t *testing.T) {
	t.Helper()
	if a.process.Stop(5 * time.Second); a.process.Stuck() {
		t.Fatalf("%s did not stop", a.name)
	}
}

// serves waits until the agent gives this process the SVID that it is entitled to.
func (a *podAgent) serves(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-a.process.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	err := harness.Until(ctx, fetchLimit, "an SVID by "+a.name, func(ctx context.Context) error {
		got, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr("unix://"+a.socket))
		if err == nil && got.ID.String() != want {
			err = fmt.Errorf("got %s, want %s", got.ID, want)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v; it said:\n%s", err, a.process.Log.Tail(10))
	}
}

// refused waits until the agent tells why it may not join.
func (a *podAgent) refused(t *testing.T, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), fetchLimit)
	defer cancel()
	line, err := a.process.WaitFor(ctx, why)
	if err != nil {
		t.Error(err)
	}
	if token, err := os.ReadFile(a.token); err != nil || strings.Contains(line, string(token)) {
		t.Errorf("%v; or the token is in the log: %s", err, line)
	}
	if a.process.Running() {
		a.stop(t)
	}
}
