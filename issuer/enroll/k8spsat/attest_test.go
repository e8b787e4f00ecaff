package k8spsat_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	method "github.com/lanyard-mtls/lanyard/issuer/enroll/k8spsat"
)

// answers are those of an API server by path; what is not among them is not there. They stand in where a real one can't be
// had, or won't answer so (kubernetes_test.go has the real one).
type answers map[string]string

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := a[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if text == "" {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Write([]byte(text))
}

// with returns the answers with others for some paths.
func (a answers) with(changes answers) answers {
	all := answers{}
	for _, from := range []answers{a, changes} {
		for path, text := range from {
			all[path] = text
		}
	}
	return all
}

const (
	reviewPath = "/apis/authentication.k8s.io/v1/tokenreviews"
	podPath    = "/api/v1/namespaces/spire/pods/agent-1"
	nodePath   = "/api/v1/nodes/node1"
)

// review is a TokenReview's answer about the user; extra is more of it.
func review(username, extra string) string {
	return `{"status":{"authenticated":true,"audiences":["spire-server"],"user":{"username":"` + username + `","extra":{` +
		`"authentication.kubernetes.io/pod-name":["agent-1"],"authentication.kubernetes.io/pod-uid":["pod-uid"]` + extra + `}}}}`
}

func healthy() answers {
	return answers{
		reviewPath: review("system:serviceaccount:spire:agent", ""),
		podPath:    `{"metadata":{"name":"agent-1","uid":"pod-uid"},"spec":{"nodeName":"node1"},"status":{"hostIP":"192.0.2.1"}}`,
		nodePath:   `{"metadata":{"name":"node1","uid":"node-uid"}}`,
	}
}

// at is the method with a cluster that is reached at url.
func at(t *testing.T, url string, log *slog.Logger) *method.Method {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	testca.Write(t, file, []byte(`{current-context: c, contexts: [{name: c, context: {cluster: k}}], clusters: [{name: k, cluster: {server: "`+url+`"}}]}`))
	m, err := method.New(method.Config{TrustDomain: td, Log: log, Clusters: map[string]method.Cluster{
		"prod": {ServiceAccountAllowList: []string{"spire:agent"}, KubeConfigFile: file},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestWhatTheAPIServerSaysDecides(t *testing.T) {
	var log bytes.Buffer
	for _, test := range []struct {
		name, want string // "" wants the agent to join
		answers    answers
		refused    bool // or else it is the issuer's own trouble
	}{
		{"all is well", "", nil, false},
		{"the node is told, too", "", answers{reviewPath: review("system:serviceaccount:spire:agent", `,"authentication.kubernetes.io/node-name":["node1"]`)}, false},
		{"another node is told", `pod "agent-1" is on node "node1": token bound to node "node2"`, answers{reviewPath: review("system:serviceaccount:spire:agent", `,"authentication.kubernetes.io/node-name":["node2"]`)}, true},
		{"not authenticated", "token not authenticated", answers{reviewPath: `{"status":{}}`}, true},
		{"a user", `"admin" is not a service account`, answers{reviewPath: review("admin", "")}, true},
		{"another service account", `"spire:web" is not an allowed service account`, answers{reviewPath: review("system:serviceaccount:spire:web", "")}, true},
		{"the same name elsewhere", `"web:agent" is not an allowed service account`, answers{reviewPath: review("system:serviceaccount:web:agent", "")}, true},
		{"no pod", "bound to no pod", answers{reviewPath: `{"status":{"authenticated":true,"audiences":["spire-server"],"user":{"username":"system:serviceaccount:spire:agent"}}}`}, true},
		{"another pod of its name", `pod UID mismatch for pod "agent-1": token bound to pod UID "pod-uid"`, answers{podPath: `{"metadata":{"name":"agent-1","uid":"other"},"spec":{"nodeName":"node1"}}`}, true},
		{"a pod without a UID", "pod UID mismatch", answers{podPath: `{"metadata":{"name":"agent-1"},"spec":{"nodeName":"node1"}}`}, true},
		{"a pod on no node", "is on no node", answers{podPath: `{"metadata":{"name":"agent-1","uid":"pod-uid"}}`}, true},
		{"a node without a UID", `UID "" of the node cannot be part`, answers{nodePath: `{"metadata":{"name":"node1"}}`}, false},
		{"a node that would be elsewhere", `../secrets`, answers{podPath: `{"metadata":{"name":"agent-1","uid":"pod-uid"},"spec":{"nodeName":"../secrets"}}`}, false},
		{"no review", "unable to validate token with TokenReview API for cluster \"prod\": it answers 500", answers{reviewPath: ""}, false},
		{"no review there", "it answers 404", answers{reviewPath: "404"}, false},
		{"no answer about the pod", "failed to get pod from k8s API server for cluster \"prod\": it answers 500", answers{podPath: ""}, false},
		{"no answer about the node", "failed to get node from k8s API server for cluster \"prod\": it answers 500", answers{nodePath: ""}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := healthy().with(test.answers)
			if all[reviewPath] == "404" {
				delete(all, reviewPath)
			}
			server := httptest.NewServer(all)
			t.Cleanup(server.Close)
			got, err := join(t.Context(), at(t, server.URL, slog.New(slog.NewTextHandler(&log, nil))), "prod", "a.b.c")
			switch {
			case test.want == "" && (err != nil || got.ID.String() != "spiffe://lanyard.test/spire/agent/k8s_psat/prod/node-uid"):
				t.Errorf("%s, %v", got.ID, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error()+log.String(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case test.want != "" && errors.Is(err, enroll.ErrRefused) != test.refused:
				t.Errorf("%v: refused: %v, want %v", err, !test.refused, test.refused)
			}
		})
	}
}

// Strangers learn that there is trouble, the log which.
func TestTroubleIsToldToTheLog(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	var log bytes.Buffer
	_, err := join(t.Context(), at(t, server.URL, slog.New(slog.NewTextHandler(&log, nil))), "prod", "a.b.c")
	addr := strings.TrimPrefix(server.URL, "http://")
	if err == nil || errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), "the issuer's log says why") || strings.Contains(err.Error(), addr) {
		t.Errorf("an API server that is away: %v", err)
	}
	if !strings.Contains(log.String(), addr) || !strings.Contains(log.String(), "cluster=prod") || strings.Contains(log.String(), "a.b.c") {
		t.Errorf("the log does not say which, or has the token:\n%s", &log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := join(ctx, at(t, server.URL, nil), "prod", "a.b.c"); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("given up: %v", err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	one := method.Cluster{ServiceAccountAllowList: []string{"spire:agent"}}
	for want, clusters := range map[string]map[string]method.Cluster{
		`cluster "prod" configuration must have at least one service account allowed`: {"prod": {}},
		`cluster name "a b"`:     {"a b": one},
		`cluster name is empty`:  {"": one},
		`clusters "a" and "a/b"`: {"a": one, "a/b": one},
	} {
		if _, err := method.New(method.Config{TrustDomain: td, Clusters: clusters}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	var log bytes.Buffer
	m, err := method.New(method.Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("lanyard.test"), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Clusters: map[string]method.Cluster{"a-b": {ServiceAccountAllowList: []string{"agent"}, KubeConfigFile: "/no/such/file"}, "a": one},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "it must be NAMESPACE:NAME") {
		t.Errorf("an account without a namespace is not told:\n%s", &log)
	}
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), `cluster "a-b": kube_config_file: stat /no/such/file`) {
		t.Errorf("Check: %v", err)
	}
}
