package k8spsat_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	realkube "github.com/lanyard-mtls/lanyard/integration/kube"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/k8spsat"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	method "github.com/lanyard-mtls/lanyard/issuer/enroll/k8spsat"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

// cluster starts a real one, or skips the test.
func cluster(t *testing.T) *realkube.Cluster {
	t.Helper()
	binary := realkube.Binary(filepath.Join("..", "..", ".."))
	if binary == "" {
		t.Skip(realkube.Skipped)
	}
	return realkube.Start(t, binary)
}

// newMethod is the method with the clusters, closed at the end of the test.
func newMethod(t *testing.T, clusters map[string]method.Cluster) *method.Method {
	t.Helper()
	m, err := method.New(method.Config{TrustDomain: td, Clusters: clusters})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return m
}

// join has the agent's half shown to the issuer's.
func join(ctx context.Context, m *method.Method, cluster, token string) (enroll.Evidence, error) {
	payload, err := k8spsat.Prove(cluster, token)
	if err != nil {
		return enroll.Evidence{}, err
	}
	return m.Attest(ctx, enroll.Conversation{Payload: payload})
}

// All of it on one real API server, which takes seconds to start.
func TestKubernetesAgentsJoin(t *testing.T) {
	k := cluster(t)
	config := k.KubeConfig(filepath.Join(t.TempDir(), "kubeconfig"), realkube.IssuerToken)
	k.Namespace("spire")
	k.ServiceAccount("spire", "agent")
	k.ServiceAccount("spire", "web")
	nodeUID := k.Node("node1", map[string]string{"zone": "a", "secret": "x"})
	pod := k.Pod(realkube.PodSpec{
		Namespace: "spire", Name: "agent-1", ServiceAccount: "agent", Node: "node1", HostIP: "192.0.2.7",
		Labels: map[string]string{"app": "agent", "other": "y"},
	})
	base := method.Cluster{
		ServiceAccountAllowList: []string{"spire:agent"}, KubeConfigFile: config,
		AllowedNodeLabelKeys: []string{"zone", "absent"}, AllowedPodLabelKeys: []string{"app"},
	}
	byPod, ownAudience, serverAudience := base, base, base
	byPod.UsePodUIDForAgentID = true
	ownAudience.Audience = []string{"lanyard"}
	serverAudience.Audience = []string{}
	m := newMethod(t, map[string]method.Cluster{"prod": base, "by-pod": byPod, "own": ownAudience, "server": serverAudience})

	t.Run("by node", func(t *testing.T) {
		got, err := join(t.Context(), m, "prod", k.Token(pod, "spire-server"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "spiffe://lanyard.test/spire/agent/k8s_psat/prod/" + nodeUID; got.ID.String() != want || !got.Reattestable {
			t.Errorf("ID %s, want %s; reattestable %v", got.ID, want, got.Reattestable)
		}
		var selectors []string
		for _, s := range got.Selectors {
			selectors = append(selectors, s.Type+":"+s.Value)
		}
		want := []string{
			"k8s_psat:cluster:prod", "k8s_psat:agent_ns:spire", "k8s_psat:agent_sa:agent", "k8s_psat:agent_pod_name:agent-1",
			"k8s_psat:agent_pod_uid:" + pod.UID, "k8s_psat:agent_node_ip:192.0.2.7", "k8s_psat:agent_node_name:node1",
			"k8s_psat:agent_node_uid:" + nodeUID, "k8s_psat:agent_node_label:zone:a", "k8s_psat:agent_pod_label:app:agent",
		}
		if diff := cmp.Diff(want, selectors); diff != "" {
			t.Errorf("selectors (-want +got)\n%s", diff)
		}
	})
	t.Run("by pod, and each audience", func(t *testing.T) {
		for _, of := range []struct{ cluster, audience, id string }{
			{"by-pod", "spire-server", "by-pod/pod/" + pod.UID}, {"own", "lanyard", "own/" + nodeUID}, {"server", "", "server/" + nodeUID},
		} {
			got, err := join(t.Context(), m, of.cluster, k.Token(pod, of.audience))
			if err != nil || got.ID.Path() != "/spire/agent/k8s_psat/"+of.id {
				t.Errorf("%s: %s, %v", of.cluster, got.ID, err)
			}
		}
	})
	t.Run("refused", func(t *testing.T) { refused(t, k, m, pod) })
	t.Run("gone", func(t *testing.T) { gone(t, k, m) })
	t.Run("not allowed", func(t *testing.T) {
		denied := base
		denied.KubeConfigFile = k.KubeConfig(filepath.Join(t.TempDir(), "kubeconfig"), "no-such-token")
		m := newMethod(t, map[string]method.Cluster{"prod": denied})
		_, err := join(t.Context(), m, "prod", k.Token(pod, "spire-server"))
		if err == nil || errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), "it answers 401") {
			t.Errorf("with credentials that the API server refuses: %v", err)
		}
	})
}

// refused tries what must not get in while pod is there.
func refused(t *testing.T, k *realkube.Cluster, m *method.Method, pod realkube.Pod) {
	web := k.Pod(realkube.PodSpec{Namespace: "spire", Name: "web-1", ServiceAccount: "web", Node: "node1"})
	lost := k.Pod(realkube.PodSpec{Namespace: "spire", Name: "lost-1", ServiceAccount: "agent", Node: "no-such-node"})
	token := k.Token(pod, "spire-server")
	parts := strings.Split(token, ".")
	forged := parts[0] + "." + parts[1] + "." + strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, parts[2])
	for _, test := range []struct{ name, cluster, token, want string }{
		{"wrong audience", "prod", k.Token(pod, "lanyard"), "token not authenticated according to TokenReview API"},
		{"the API server's audience", "prod", k.Token(pod, ""), "token not authenticated"},
		{"forged", "prod", forged, "token not authenticated"},
		{"service account", "prod", k.Token(web, "spire-server"), `"spire:web" is not an allowed service account`},
		{"no pod", "prod", k.LooseToken("spire", "agent", "spire-server"), "the token is bound to no pod"},
		{"no node", "prod", k.Token(lost, "spire-server"), `node "no-such-node" of pod "lost-1" is not there`},
		{"no service account", "server", "a.b.c", "token not authenticated"},
	} {
		_, err := join(t.Context(), m, test.cluster, test.token)
		if !errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), test.token) {
			t.Errorf("%s: the error repeats the token", test.name)
		}
	}
	_, err := join(t.Context(), m, "elsewhere", token)
	if !errors.Is(err, enroll.ErrMalformed) || !strings.Contains(err.Error(), `not configured for cluster "elsewhere"`) {
		t.Errorf("another cluster: %v", err)
	}
	for _, payload := range []string{"", "{}", `{"cluster":"prod"}`, `{"cluster":"prod","token":"x"}`} {
		if _, err := m.Attest(t.Context(), enroll.Conversation{Payload: []byte(payload)}); !errors.Is(err, enroll.ErrMalformed) {
			t.Errorf("payload %q: %v", payload, err)
		}
	}
}

// gone deletes a pod whose token was taken, and puts another of its name in its place.
func gone(t *testing.T, k *realkube.Cluster, m *method.Method) {
	spec := realkube.PodSpec{Namespace: "spire", Name: "agent-2", ServiceAccount: "agent", Node: "node1"}
	pod := k.Pod(spec)
	token := k.Token(pod, "spire-server")
	if _, err := join(t.Context(), m, "prod", token); err != nil {
		t.Fatal(err)
	}
	// The API server remembers for some seconds that the token was good: what counts is the pod.
	k.DeletePod(pod)
	_, err := join(t.Context(), m, "prod", token)
	if !errors.Is(err, enroll.ErrRefused) || !containsAny(err, `pod "agent-2" is not there any more`, "token not authenticated") {
		t.Errorf("of a pod that was deleted: %v", err)
	}
	again := k.Pod(spec)
	_, err = join(t.Context(), m, "prod", token)
	if !errors.Is(err, enroll.ErrRefused) || !containsAny(err, "pod UID mismatch", "token not authenticated") {
		t.Errorf("of another pod of the same name: %v", err)
	}
	if _, err := join(t.Context(), m, "prod", k.Token(again, "spire-server")); err != nil {
		t.Errorf("of the new pod: %v", err)
	}
}

func containsAny(err error, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// The agents of one cluster get nothing in another, whatever they call it.
func TestKubernetesTokenOfAnotherCluster(t *testing.T) {
	one, two := cluster(t), cluster(t)
	clusters := map[string]method.Cluster{}
	tokens := map[string]string{}
	for name, k := range map[string]*realkube.Cluster{"one": one, "two": two} {
		k.Namespace("spire")
		k.ServiceAccount("spire", "agent")
		k.Node("node1", nil)
		pod := k.Pod(realkube.PodSpec{Namespace: "spire", Name: "agent-1", ServiceAccount: "agent", Node: "node1"})
		tokens[name] = k.Token(pod, "spire-server")
		clusters[name] = method.Cluster{
			ServiceAccountAllowList: []string{"spire:agent"},
			KubeConfigFile:          k.KubeConfig(filepath.Join(t.TempDir(), "kubeconfig"), realkube.IssuerToken),
		}
	}
	m := newMethod(t, clusters)
	for name, token := range tokens {
		for in := range clusters {
			_, err := join(t.Context(), m, in, token)
			if name == in && err != nil || name != in && !errors.Is(err, enroll.ErrRefused) {
				t.Errorf("token of %s in %s: %v", name, in, err)
			}
		}
	}
}
