package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/integration/harness"
	"github.com/lanyard-mtls/lanyard/integration/kube"
)

// node is a real kubelet with an agent beside it that asks it, of an issuer of ours.
type node struct {
	*kube.Node
	issuer *harness.Issuer
	agent  *harness.Agent
	token  string // the agent's for the kubelet, a file
}

func newNode(t *testing.T) *node {
	t.Helper()
	if why := kube.NodeSkipped(".."); why != "" {
		t.Skip(why)
	}
	c := kube.Start(t, kube.Binary(".."))
	c.Namespace("spire")
	c.ServiceAccount("spire", "agent")
	c.MayAskKubelets("spire", "agent")
	c.Namespace("prod")
	for _, account := range []string{"web", "api", "other"} {
		c.ServiceAccount("prod", account)
	}
	s := harness.NewStage(t, bin)
	n := &node{issuer: harness.StartIssuer(s, harness.IssuerSpec{}), Node: kube.StartNode(c, "..", "node1")}
	n.token = s.WriteFile("token", c.LooseToken("spire", "agent", ""))
	n.agent = harness.NewAgent(n.issuer, harness.AgentSpec{Attestor: n.attestors()})
	n.agent.Start(n.issuer.Token(n.issuer.ID("/node")))
	return n
}

// attestors are the plugins of an agent that asks the kubelet.
func (n *node) attestors() string {
	return fmt.Sprintf(`NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "k8s" {
    plugin_data {
      kubelet_secure_port = %d
      kubelet_ca_path     = %q
      token_path          = %q
      poll_retry_interval = "100ms"
    }
  }`, n.SecurePort, n.CAFile, n.token)
}

func (n *node) entry(id string, selectors ...string) {
	args := []string{"entry", "create", "-parentID", n.issuer.ID("/node"), "-spiffeID", n.issuer.ID(id)}
	for _, s := range selectors {
		args = append(args, "-selector", s)
	}
	n.issuer.Admin(args...)
}

// run runs a pod that sees the agent's socket, and lanyard.
func (n *node) run(name, account string, labels map[string]string) *kube.Running {
	return n.Run(kube.RunSpec{
		Namespace: "prod", Name: name, ServiceAccount: account, Labels: labels, User: 1234,
		Mounts: map[string]string{"/s": filepath.Dir(n.agent.Socket), "/b": bin},
	})
}

// wantIDs waits until a program in the pod gets these SVIDs and no others.
func (n *node) wantIDs(t *testing.T, pod *kube.Running, want ...string) {
	t.Helper()
	err := harness.Until(t.Context(), fetchLimit, "SVIDs in pod "+pod.Name, func(context.Context) error {
		out, err := pod.Exec("/b/lanyard", "agent", "api", "fetch", "x509", "-socketPath", "/s/api.sock")
		got := strings.Count(out, "SPIFFE ID:")
		for _, id := range want {
			if !strings.Contains(out, n.issuer.ID(id)+"\n") {
				return fmt.Errorf("no %s: %w\n%s", id, err, out)
			}
		}
		if got != len(want) {
			return fmt.Errorf("%d SVIDs\n%s", got, out)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v; the agent said:\n%s", err, n.agent.Process.Log.Tail(20))
	}
}

// Pods of a real kubelet get what their service account, labels and images earn them; one that earns nothing gets nothing;
// and all of that again after the agent was started anew.
func TestKubernetesWorkloads(t *testing.T) {
	n := newNode(t)
	n.entry("/web", "k8s:ns:prod", "k8s:sa:web", "k8s:pod-label:app:web", "unix:uid:1234")
	n.entry("/image", "k8s:container-name:web", "k8s:pod-image:localhost/web:1", "k8s:pod-label:app:web")
	n.entry("/api", "k8s:sa:api")
	web := n.run("web-1", "web", map[string]string{"app": "web"})
	api := n.run("api-1", "api", nil)
	other := n.run("other-1", "other", nil)
	n.wantIDs(t, web, "/web", "/image")
	n.wantIDs(t, api, "/api")
	if out, err := other.Exec("/b/lanyard", "agent", "api", "fetch", "x509", "-timeout", "3s", "-socketPath", "/s/api.sock"); err == nil || !strings.Contains(out, "no identity issued") {
		t.Errorf("a pod without entry: %v\n%s", err, out)
	}
	if err := n.agent.Process.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	// The token is read anew when it is refused: kubelets' tokens live for an hour.
	if err := os.WriteFile(n.token, []byte(n.Cluster.LooseToken("spire", "agent", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	n.agent.Start("")
	n.wantIDs(t, web, "/web", "/image")
}

// theirSelector is one of spire-agent's in its log, ourSelector one of ours in an explanation.
var (
	theirSelector = regexp.MustCompile(`type:\\"k8s\\"\s+value:\\"([^\\]+)\\"`)
	ourSelector   = regexp.MustCompile(`(?m)^ +k8s:(\S+)$`)
)

// A real spire-agent beside ours, on the same kubelet, finds the same selectors in the same container.
func TestInteropKubernetesSelectors(t *testing.T) {
	spireAgent := peer(t, "spire-agent")
	n := newNode(t)
	theirs := harness.NewAgent(n.issuer, harness.AgentSpec{SPIREAgent: spireAgent, Attestor: n.attestors()})
	theirs.Start(n.issuer.Token(n.issuer.ID("/their-node")))
	pod := n.Run(kube.RunSpec{
		Namespace: "prod", Name: "web-1", ServiceAccount: "web", Labels: map[string]string{"app": "web", "a.b/c": "d"},
		Mounts: map[string]string{"/s": filepath.Dir(theirs.Socket), "/b": bin},
	})
	// It has no entry: what matters is what the agent says of it.
	_, _ = pod.Exec("/b/lanyard", "agent", "api", "fetch", "x509", "-timeout", "3s", "-socketPath", "/s/"+filepath.Base(theirs.Socket))
	const attested = "PID attested to have selectors"
	line, err := theirs.Process.WaitFor(t.Context(), attested)
	if err != nil {
		t.Fatal(err)
	}
	explained := n.issuer.Run(filepath.Join(bin, "lanyard"), "agent", "explain", "-socketPath", n.agent.Admin, "-pid", fmt.Sprint(pod.PID()))
	want, got := matches(theirSelector, line), matches(ourSelector, explained)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 15 {
		t.Errorf("%d selectors of spire-agent, %d of ours (-theirs +ours):\n%s", len(want), len(got), diff)
	}
}

// matches are the first groups, sorted, each once.
func matches(re *regexp.Regexp, text string) []string {
	var all []string
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}
