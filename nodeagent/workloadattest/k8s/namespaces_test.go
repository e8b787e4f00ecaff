package k8s

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// apiServer answers for the namespace prod, with what a real one answers.
func apiServer(t *testing.T) (dir string, requests *int) {
	t.Helper()
	requests = new(int)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if r.URL.Path != "/api/v1/namespaces/prod" || r.Header.Get("Authorization") != "Bearer api-token" {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"prod","labels":{"team":"a","kubernetes.io/metadata.name":"prod"}}}`))
	}))
	t.Cleanup(s.Close)
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	dir = t.TempDir()
	testca.Write(t, dir+"/ca.crt", testca.PEM(s.Certificate()))
	testca.Write(t, dir+"/token", []byte("api-token"))
	return dir, requests
}

func TestNamespaceLabels(t *testing.T) {
	dir, requests := apiServer(t)
	k := newKubelet(t)
	k.cfg.EnableNamespaceLabels = true
	p := newPlugin(t, k.cfg)
	p.namespaces.dir = dir
	want := append([]string{"k8s:ns-label:team:a", "k8s:ns-label:kubernetes.io/metadata.name:prod"}, wantContainer...)
	slices.Sort(want)
	for range 3 {
		got, err := attest(t.Context(), p, podUID, containerID)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if *requests != 1 {
		t.Errorf("%d requests, want 1", *requests)
	}
}

// Without the right to ask, what the kubelet tells counts, and the rest is
// reported as missing.
func TestNamespaceLabelsThatCanNotBeHad(t *testing.T) {
	dir, _ := apiServer(t)
	testca.Write(t, dir+"/token", []byte("other-token"))
	k := newKubelet(t)
	k.cfg.EnableNamespaceLabels = true
	p := newPlugin(t, k.cfg)
	p.namespaces.dir = dir
	got, err := attest(t.Context(), p, podUID, containerID)
	if err == nil || !strings.Contains(err.Error(), "right to get namespaces") || strings.Contains(err.Error(), "other-token") {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(got, wantContainer) {
		t.Errorf("selectors %q", got)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := attest(t.Context(), p, podUID, containerID); err == nil || !strings.Contains(err.Error(), "$KUBERNETES_SERVICE_HOST") {
		t.Errorf("error %v", err)
	}
}
