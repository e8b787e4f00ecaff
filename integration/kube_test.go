package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

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
