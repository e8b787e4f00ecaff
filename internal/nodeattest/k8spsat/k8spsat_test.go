package k8spsat_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/k8spsat"
)

const token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"

func TestPayloadIsSPIREs(t *testing.T) {
	payload, err := k8spsat.Prove("prod", token+"\n") // as a file has it
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"cluster":"prod","token":"` + token + `"}`; string(payload) != want {
		t.Errorf("payload %s, want %s", payload, want)
	}
	got, err := k8spsat.Parse(payload)
	if err != nil || got != (k8spsat.Payload{Cluster: "prod", Token: token}) {
		t.Errorf("Parse = %+v, %v", got, err)
	}
}

func TestWhatIsNoTokenIsNotSent(t *testing.T) {
	for name, token := range map[string]string{
		"empty": " \n", "long": strings.Repeat("a", 33<<10), "text": "secret-word", "two": "a.b.c\nd.e.f", "key": "-----BEGIN PRIVATE KEY-----.secret.",
	} {
		_, err := k8spsat.Prove("prod", token)
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats it: %v", name, err)
		}
	}
}

func TestPayloadsThatAreRefused(t *testing.T) {
	for payload, want := range map[string]string{
		``:                                     "failed to unmarshal data payload",
		`{`:                                    "failed to unmarshal data payload",
		`[]`:                                   "failed to unmarshal data payload",
		`{} x`:                                 "failed to unmarshal data payload",
		`{"token":"a.b.c"}`:                    "missing cluster in attestation data",
		`{"cluster":"prod"}`:                   "missing token in attestation data",
		`{"cluster":"prod","token":7}`:         "failed to unmarshal data payload",
		`{"cluster":"prod","token":"a b.c.d"}`: "not a JWT",
		`{"cluster":"prod","token":"abc"}`:     "not a JWT",
		`{"cluster":"../x","token":"a.b.c"}`:   `cluster name "../x"`,
		`{"cluster":"a//b","token":"a.b.c"}`:   `cluster name "a//b"`,
		`{"cluster":"prod","token":"` + strings.Repeat("a", 40<<10) + `"}`: "token has 40960 bytes",
		`{"cluster":"` + strings.Repeat("a", 70<<10) + `"}`:                "attestation payload has",
	} {
		if _, err := k8spsat.Parse([]byte(payload)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.60s) = %v, want %q", payload, err, want)
		}
	}
}

func TestFactsMakeSPIREsIDAndSelectors(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	facts := k8spsat.Facts{
		Cluster: "prod", Namespace: "spire", ServiceAccount: "agent", PodName: "agent-x", PodUID: "pod-uid",
		NodeName: "node1", NodeUID: "node-uid", HostIP: "192.0.2.1",
		NodeLabels: map[string]string{"zone": "b", "arch": "amd64"}, PodLabels: map[string]string{"app": "agent"},
	}
	for byPod, want := range map[bool]string{
		false: "spiffe://lanyard.test/spire/agent/k8s_psat/prod/node-uid",
		true:  "spiffe://lanyard.test/spire/agent/k8s_psat/prod/pod/pod-uid",
	} {
		if got, err := facts.AgentID(td, byPod); err != nil || got.String() != want {
			t.Errorf("AgentID = %s, %v, want %s", got, err, want)
		}
	}
	want := []string{
		"cluster:prod", "agent_ns:spire", "agent_sa:agent", "agent_pod_name:agent-x", "agent_pod_uid:pod-uid",
		"agent_node_ip:192.0.2.1", "agent_node_name:node1", "agent_node_uid:node-uid",
		"agent_node_label:arch:amd64", "agent_node_label:zone:b", "agent_pod_label:app:agent",
	}
	if diff := cmp.Diff(want, facts.Selectors()); diff != "" {
		t.Errorf("selectors (-want +got)\n%s", diff)
	}
	for _, uid := range []string{"", "..", "a/b", "a b"} {
		facts.NodeUID = uid
		if id, err := facts.AgentID(td, false); err == nil {
			t.Errorf("a node UID of %q made %s", uid, id)
		}
	}
}

func TestUsersThatAreNoServiceAccount(t *testing.T) {
	if ns, name, err := k8spsat.ParseUser("system:serviceaccount:spire:agent"); err != nil || ns != "spire" || name != "agent" {
		t.Errorf("ParseUser = %q, %q, %v", ns, name, err)
	}
	for _, user := range []string{"", "admin", "system:node:node1", "a:b:spire:agent", "system:serviceaccount::agent", "system:serviceaccount:spire:", "system:serviceaccount:a:b:c"} {
		if _, _, err := k8spsat.ParseUser(user); err == nil {
			t.Errorf("%q was taken", user)
		}
	}
}

// FuzzParse holds that what is taken can be part of an agent's SPIFFE ID, and is what the agent's half makes.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"cluster":"prod","token":"a.b.c"}`, `{"cluster":"a/b","token":"a.b.c"}`, `{"cluster":"..","token":"a.b.c"}`, `{"Cluster":"x","tOken":"a.b.c"}`, `null`} {
		f.Add([]byte(seed))
	}
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := k8spsat.Parse(payload)
		if err != nil {
			return
		}
		id, err := k8spsat.Facts{Cluster: p.Cluster, NodeUID: "uid"}.AgentID(td, false)
		if err != nil || !nodeattest.IsAgentID(td, id) || id.Path() != "/spire/agent/k8s_psat/"+p.Cluster+"/uid" {
			t.Fatalf("cluster %q became %s: %v", p.Cluster, id, err)
		}
		again, err := k8spsat.Prove(p.Cluster, p.Token)
		if err != nil {
			t.Fatalf("taken, but not made: %v", err)
		}
		if q, err := k8spsat.Parse(again); err != nil || q != p {
			t.Fatalf("%+v became %+v: %v", p, q, err)
		}
	})
}
