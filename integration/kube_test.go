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
	"github.com/lanyard-mtls/lanyard/integration/kube"
)

// kubernetes is a real API server with one node and what agents need; the test is skipped where there is none.
type kubernetes struct {
	*kube.Cluster
	nodeUID string
	pods    int
}

func newKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	binary := kube.Binary("..")
	if binary == "" {
		t.Skip(kube.Skipped)
	}
	k := &kubernetes{Cluster: kube.Start(t, binary)}
	k.Namespace("spire")
	k.ServiceAccount("spire", "agent")
	k.ServiceAccount("spire", "web")
	k.nodeUID = k.Node("node1", map[string]string{"zone": "a"})
	return k
}

// pod makes a pod of the service account on the node.
func (k *kubernetes) pod(account string) kube.Pod {
	k.pods++
	return k.Pod(kube.PodSpec{
		Namespace: "spire", Name: fmt.Sprintf("%s-%d", account, k.pods), ServiceAccount: account, Node: "node1", HostIP: "192.0.2.7",
	})
}

// issuer starts an issuer that takes the cluster's agents; spire is a real spire-server, or ours if empty.
func (k *kubernetes) issuer(t *testing.T, spire string) *harness.Issuer {
	t.Helper()
	s := harness.NewStage(t, bin)
	config := k.KubeConfig(s.Path("kubeconfig"), kube.IssuerToken)
	return harness.StartIssuer(s, harness.IssuerSpec{SPIREServer: spire, Plugins: fmt.Sprintf(`NodeAttestor "k8s_psat" {
  plugin_data {
    clusters = {
      "prod" = {
        service_account_allow_list = ["spire:agent"]
        kube_config_file = %q
        allowed_node_label_keys = ["zone"]
      }
    }
  }
}
`, config)})
}

// podAgent is an agent that runs as if it was in a pod: its token is a file.
type podAgent struct {
	issuer  *harness.Issuer
	tool    harness.Tool
	name    string
	socket  string
	token   string // the file
	process *harness.Process
}

// agent prepares an agent; spire is a real spire-agent, or ours if empty.
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

func TestKubernetesAgentsJoin(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	for _, issuer := range []string{"", "spire-server"} {
		for _, agent := range []string{"", "spire-agent"} {
			if issuer != "" && agent != "" {
				continue // neither is ours
			}
			t.Run(strings.Trim("ours "+issuer+agent, " "), func(t *testing.T) {
				var spireServer, spireAgent string
				if issuer != "" {
					spireServer = peer(t, issuer)
				}
				if agent != "" {
					spireAgent = peer(t, agent)
				}
				joins(t, k, k.issuer(t, spireServer), spireAgent)
			})
		}
	}
}

// joins lets an agent join, serve, and come back after it has lost all it had, as another pod of its node.
func joins(t *testing.T, k *kubernetes, issuer *harness.Issuer, spireAgent string) {
	uid := fmt.Sprintf("unix:uid:%d", os.Getuid())
	issuer.Admin("entry", "create", "-node", "-spiffeID", issuer.ID("/kubernetes"), "-selector", "k8s_psat:cluster:prod",
		"-selector", "k8s_psat:agent_node_label:zone:a")
	issuer.Admin("entry", "create", "-parentID", issuer.ID("/kubernetes"), "-spiffeID", issuer.ID("/web"), "-selector", uid)

	a := agentInPod(issuer, spireAgent)
	pod := k.pod("agent")
	a.start(t, k.Token(pod, "spire-server"), false)
	a.serves(t, issuer.ID("/web"))
	id := issuer.ID("/spire/agent/k8s_psat/prod/" + k.nodeUID)
	shown := issuer.Admin("agent", "show", "-spiffeID", id)
	for _, want := range []string{"k8s_psat", "k8s_psat:agent_pod_uid:" + pod.UID, "k8s_psat:agent_node_ip:192.0.2.7", "k8s_psat:agent_sa:agent"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %s in\n%s", want, shown)
		}
	}
	a.stop(t)
	k.DeletePod(pod)
	pod = k.pod("agent")
	a.start(t, k.Token(pod, "spire-server"), true)
	a.serves(t, issuer.ID("/web"))
	if shown := issuer.Admin("agent", "show", "-spiffeID", id); !strings.Contains(shown, "k8s_psat:agent_pod_uid:"+pod.UID) {
		t.Errorf("after it joined as another pod, its selectors are those of the one before:\n%s", shown)
	}
	if spireAgent == "" {
		comesBack(t, issuer, a, id)
	}
	a.stop(t)

	issuer.Admin("agent", "ban", "-spiffeID", id)
	a.start(t, k.Token(pod, "spire-server"), true)
	a.refused(t, "banned")
}

// comesBack evicts the agent, which can show its token again, and does so by itself.
func comesBack(t *testing.T, issuer *harness.Issuer, a *podAgent, id string) {
	t.Helper()
	issuer.Admin("agent", "evict", "-spiffeID", id)
	err := harness.Until(t.Context(), fetchLimit, "the agent to join again after it was evicted", func(ctx context.Context) error {
		_, err := issuer.TryAdmin(ctx, "agent", "show", "-spiffeID", id)
		return err
	})
	if err != nil {
		t.Errorf("%v; it said:\n%s", err, a.process.Log.Tail(10))
	}
	a.serves(t, issuer.ID("/web"))
}

func TestKubernetesAgentsThatMayNotJoin(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	issuer := k.issuer(t, "")
	gone, agent := k.pod("agent"), k.pod("agent")
	old := k.Token(gone, "spire-server")
	k.DeletePod(gone)
	for name, test := range map[string]struct{ token, why string }{
		"wrong audience":  {k.Token(agent, "other"), "token not authenticated according to TokenReview API"},
		"service account": {k.Token(k.pod("web"), "spire-server"), `is not an allowed service account`},
		"no pod":          {k.LooseToken("spire", "agent", "spire-server"), "the token is bound to no pod"},
		"deleted pod":     {old, "token not authenticated according to TokenReview API"},
	} {
		t.Run(name, func(t *testing.T) {
			a := agentInPod(issuer, "")
			a.start(t, test.token, true)
			a.refused(t, test.why)
		})
	}
	if agents := issuer.Admin("agent", "list"); strings.Contains(agents, "k8s_psat") {
		t.Errorf("an agent has joined:\n%s", agents)
	}
}
