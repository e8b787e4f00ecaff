package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

const (
	reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
	podPath = "/api/v1/namespaces/spire/pods/agent"
)

func TestAnswersThatAreRefused(t *testing.T) {
	f := newFake(t)
	c, _ := f.client(t, object{"token": "me"})
	for _, test := range []struct{ name, answer, want string }{
		{"no JSON", "<html>", "is not what it should be"},
		{"another type", `{"status":{"authenticated":"yes"}}`, "is not what it should be"},
		{"nothing", `{}`, "not authenticated"},
		{"not authenticated", `{"status":{"error":"token has\nexpired"}}`, "not authenticated: token has expired"},
		{"no audience", `{"status":{"authenticated":true,"user":{"username":"x"}}}`, "for the audiences []"},
		{"another audience", `{"status":{"authenticated":true,"audiences":["other"],"user":{"username":"x"}}}`, `for the audiences ["other"], want one of ["a" "b"]`},
		{"two pods", `{"status":{"authenticated":true,"audiences":["b"],"user":{"username":"x","extra":{"authentication.kubernetes.io/pod-name":["p","q"]}}}}`, "names 2 of pod-name"},
		{"endless", strings.Repeat(" ", maxAnswer+1), "has more than 4194304 bytes"},
	} {
		f.answer(reviews, test.answer)
		if _, err := c.ReviewToken(t.Context(), "t", []string{"a", "b"}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	f.answer(podPath, `{"metadata":{"name":"other","uid":"1"}}`)
	if _, err := c.Pod(t.Context(), "spire", "agent"); err == nil || !strings.Contains(err.Error(), `answers with pod "other"`) {
		t.Errorf("another pod: %v", err)
	}
	f.handle(podPath, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://evil.test/", http.StatusFound)
	})
	if _, err := c.Pod(t.Context(), "spire", "agent"); err == nil || !strings.Contains(err.Error(), "answers 302") {
		t.Errorf("a redirection: %v", err)
	}
	if _, err := c.Node(t.Context(), "node1"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "404 Not Found: no such object") {
		t.Errorf("what is not there: %v", err)
	}
	asked := len(f.asked)
	for _, name := range []string{"", ".", "..", "a/b", "../secrets", "a%2fb", "A", "a?x", strings.Repeat("a", 254)} {
		if _, err := c.Node(t.Context(), name); err == nil || !strings.Contains(err.Error(), "is not the name of a node") {
			t.Errorf("node %q: %v", name, err)
		}
		if _, err := c.Pod(t.Context(), name, "agent"); err == nil {
			t.Errorf("namespace %q was taken", name)
		}
	}
	if len(f.asked) != asked {
		t.Error("asked for what cannot be")
	}
}

func TestAnswersThatNeverCome(t *testing.T) {
	f := newFake(t)
	c, _ := f.client(t, object{"token": "me"})
	asked := make(chan struct{})
	f.handle(podPath, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Pod(ctx, "spire", "agent"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	for range maxCalls { // as if so many were in progress
		c.calls <- struct{}{}
	}
	if _, err := c.Pod(ctx, "spire", "agent"); err == nil || !strings.Contains(err.Error(), "too many calls to this cluster") {
		t.Errorf("one call too many: %v", err)
	}
}

// Who the issuer is, is read with each call: a renewed token or certificate needs no restart.
func TestCredentialsAreReadAgain(t *testing.T) {
	f := newFake(t)
	f.answer(podPath, `{"metadata":{"name":"agent","uid":"1"},"spec":{"nodeName":"n"},"status":{"hostIP":"192.0.2.1"}}`)
	c, file := f.client(t, object{"token": "one"})
	check := func(want string) {
		t.Helper()
		pod, err := c.Pod(t.Context(), "spire", "agent")
		if diff := cmp.Diff(Pod{UID: "1", NodeName: "n", HostIP: "192.0.2.1"}, pod); err != nil || diff != "" {
			t.Fatalf("%v (-want +got)\n%s", err, diff)
		}
		if got := f.last().Header.Get("Authorization"); got != want {
			t.Errorf("authorized by %q, want %q", got, want)
		}
	}
	check("Bearer one")
	client := c.client
	testca.Write(t, file, kubeconfig(t, f.cluster(), object{"token": "two"}))
	check("Bearer two")
	if c.client != client {
		t.Error("another token makes another connection")
	}
	tokenFile := filepath.Join(filepath.Dir(file), "tok")
	testca.Write(t, tokenFile, []byte("three\n"))
	testca.Write(t, file, kubeconfig(t, f.cluster(), object{"tokenFile": "tok"}))
	check("Bearer three")
	testca.Write(t, tokenFile, []byte("four"))
	check("Bearer four")
	ca := testca.New(t, "k8s.test")
	leaf, key := ca.Leaf(t)
	testca.Write(t, filepath.Join(filepath.Dir(file), "c.pem"), testca.PEM(leaf))
	testca.Write(t, filepath.Join(filepath.Dir(file), "k.pem"), testca.KeyPEM(t, key))
	testca.Write(t, file, kubeconfig(t, f.cluster(), object{"client-certificate": "c.pem", "client-key": "k.pem"}))
	check("")
	if c.client == client {
		t.Error("a client certificate makes no connection of its own")
	}
	testca.Write(t, file, kubeconfig(t, f.cluster(), object{"username": "u", "password": "p", "as": "agent", "as-groups": []string{"g", "h"}, "as-user-extra": object{"a/b": []string{"c"}}}))
	check("Basic dTpw")
	header := f.last().Header
	if header.Get("Impersonate-User") != "agent" || len(header.Values("Impersonate-Group")) != 2 || header.Get("Impersonate-Extra-a%2fb") != "c" {
		t.Errorf("impersonation: %v", header)
	}
}

func TestPodsOwnServiceAccount(t *testing.T) {
	f := newFake(t)
	f.answer(podPath, `{"metadata":{"name":"agent","uid":"1"}}`)
	u, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := map[string]string{}
	c := New(Config{Getenv: func(name string) string { return env[name] }, PodFiles: dir})
	t.Cleanup(c.Close)
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "set kube_config_file") {
		t.Errorf("outside of a cluster: %v", err)
	}
	env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] = u.Hostname(), u.Port()
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "service account of this pod") {
		t.Errorf("without a token: %v", err)
	}
	testca.Write(t, filepath.Join(dir, "ca.crt"), f.ca())
	for _, token := range []string{"one", "two"} {
		testca.Write(t, filepath.Join(dir, "token"), []byte(token+"\n"))
		if _, err := c.Pod(t.Context(), "spire", "agent"); err != nil {
			t.Fatal(err)
		}
		if got := f.last().Header.Get("Authorization"); got != "Bearer "+token {
			t.Errorf("authorized by %q", got)
		}
	}
}

func TestAPIServersThatAreNotTrusted(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	var log bytes.Buffer
	c := New(Config{KubeConfigFile: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
	t.Cleanup(c.Close)
	testca.Write(t, filepath.Join(dir, "ca.pem"), testca.PEM(testca.New(t, "other.test").Cert))
	testca.Write(t, file, kubeconfig(t, object{"server": f.URL, "certificate-authority": "ca.pem"}, object{"token": "t"}))
	if _, err := c.Node(t.Context(), "n"); err == nil || !strings.Contains(err.Error(), "certificate") || len(f.asked) != 0 {
		t.Errorf("of another authority: %v, asked %d times", err, len(f.asked))
	}
	cluster := f.cluster()
	cluster["tls-server-name"] = "other.test"
	testca.Write(t, file, kubeconfig(t, cluster, object{"token": "t"}))
	if _, err := c.Node(t.Context(), "n"); err == nil || !strings.Contains(err.Error(), "other.test") {
		t.Errorf("of another name: %v", err)
	}
	testca.Write(t, file, kubeconfig(t, object{"server": f.URL, "insecure-skip-tls-verify": true}, object{"token": "t"}))
	for range 2 {
		if _, err := c.Node(t.Context(), "n"); !errors.Is(err, ErrNotFound) {
			t.Errorf("unverified: %v", err)
		}
	}
	if strings.Count(log.String(), "insecure-skip-tls-verify") != 1 {
		t.Errorf("want it told once:\n%s", &log)
	}
}

// FuzzReview holds that nobody is authenticated whom the API server doesn't authenticate for an audience that was asked for.
func FuzzReview(f *testing.F) {
	f.Add([]byte(`{"status":{"authenticated":true,"audiences":["a"],"user":{"username":"x","extra":{"authentication.kubernetes.io/pod-name":["p"]}}}}`))
	f.Add([]byte(`{"status":{"authenticated":true,"audiences":[],"user":{}}}`))
	f.Add([]byte(`{"status":{"error":"x"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var review tokenReview
		if json.Unmarshal(answer, &review) != nil {
			return
		}
		_, err := review.Status.user([]string{"a", "b"})
		asked := slices.Contains(review.Status.Audiences, "a") || slices.Contains(review.Status.Audiences, "b")
		if err == nil && !(review.Status.Authenticated && asked) {
			t.Fatalf("took %s", answer)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q is more than a line", err)
		}
		if message := statusMessage(answer); len(message) > 303 || strings.Contains(message, "\n") {
			t.Fatalf("message %q", message)
		}
	})
}

// BenchmarkAccess is what reading the kubeconfig file with each call costs.
func BenchmarkAccess(b *testing.B) {
	f := newFake(b)
	c, _ := f.client(b, object{"token": "me"})
	for b.Loop() {
		if _, err := c.access(); err != nil {
			b.Fatal(err)
		}
	}
}
