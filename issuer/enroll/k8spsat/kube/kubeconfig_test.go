package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

func TestKubeConfigsThatAreRefused(t *testing.T) {
	const secret = "s3cret"
	server := object{"server": "https://192.0.2.1:6443"}
	with := func(key string, value any) object { return object{"server": "https://192.0.2.1:6443", key: value} }
	for _, test := range []struct {
		name, want    string
		cluster, user object
	}{
		{"no server", "server is not a URL", object{}, object{}},
		{"a path as server", "server is not a URL", object{"server": "/x"}, object{}},
		{"a password in the URL", "server is not a URL", object{"server": "https://u:" + secret + "@k"}, object{}},
		{"http", "server http://192.0.2.1:8080 is not of https", object{"server": "http://192.0.2.1:8080"}, object{}},
		{"CA", "certificate-authority-data is not base64", with("certificate-authority-data", "%"), object{}},
		{"CA file", "certificate-authority: stat", with("certificate-authority", "none.pem"), object{}},
		{"CA text", "has no certificate in PEM", with("certificate-authority-data", "eA=="), object{}},
		{"CA and insecure", "exclude each other", object{"server": "https://k", "certificate-authority-data": "eA==", "insecure-skip-tls-verify": true}, object{}},
		{"proxy", "proxy-url is not a URL", with("proxy-url", "::"), object{}},
		{"auth provider", `auth-provider "gcp"`, server, object{"auth-provider": object{"name": "gcp"}}},
		{"certificate alone", "one is missing", server, object{"client-certificate-data": "eA=="}},
		{"certificate", "client certificate: tls:", server, object{"client-certificate-data": "eA==", "client-key-data": "eA=="}},
		{"token file", "tokenFile: stat", server, object{"tokenFile": "none"}},
		{"token", "white space", server, object{"token": secret + "\n" + secret}},
		{"plugin", "command is missing", server, object{"exec": object{"apiVersion": "client.authentication.k8s.io/v1"}}},
		{"old plugin", `apiVersion "client.authentication.k8s.io/v1alpha1"`, server, object{"exec": object{"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}},
		{"plugin that asks", "interactiveMode", server, object{"exec": object{"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Always"}}},
		{"type", "not a kubeconfig file", server, object{"token": []string{secret}}},
	} {
		file := filepath.Join(t.TempDir(), "config")
		testca.Write(t, file, kubeconfig(t, test.cluster, test.user))
		err := New(Config{KubeConfigFile: file}).Check()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has a secret: %v", test.name, err)
		}
	}
	for text, want := range map[string]string{
		"":                   "current-context is missing",
		"\t- x":              "not a kubeconfig file",
		"current-context: x": `current-context "x" is none of the contexts`,
		"{current-context: x, contexts: [{name: x, context: {cluster: k}}]}":                                 `context "x" has the cluster "k", which is none of the clusters`,
		"{current-context: x, contexts: [{name: x, context: {cluster: k, user: z}}], clusters: [{name: k}]}": `context "x" has the user "z", who is none`,
	} {
		if _, err := parseKubeConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	testca.Write(t, large, nil)
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "no such file", dir: "is not a file", "/dev/zero": "is not a file", large: "at most 1048576"} {
		if err := New(Config{KubeConfigFile: path}).Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// The kubeconfig of many tools: YAML, with what only kubectl reads.
const common = `apiVersion: v1
kind: Config
current-context: prod
preferences: {colors: true}
clusters:
- name: prod
  cluster:
    server: https://k.example.org/k8s/clusters/c1
    extensions: [{name: x, extension: {y: 1}}]
    disable-compression: true
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: aws
      args: ["eks", "get-token"]
      env: null
      interactiveMode: IfAvailable
contexts:
- name: prod
  context: {cluster: prod, user: me, namespace: x}
`

func TestCommonKubeConfig(t *testing.T) {
	chosen, err := parseKubeConfig([]byte(common))
	if err != nil {
		t.Fatal(err)
	}
	a, err := chosen.access("/etc/kube")
	if err != nil {
		t.Fatal(err)
	}
	if got := a.server.JoinPath("/api/v1/nodes/x").String(); got != "https://k.example.org/k8s/clusters/c1/api/v1/nodes/x" {
		t.Errorf("asks %s", got)
	}
	if a.exec == nil || a.exec.Command != "aws" || len(a.exec.Args) != 2 {
		t.Errorf("plugin %+v", a.exec)
	}
}

// FuzzKubeConfig holds that what is taken has a server that tokens may be sent to.
func FuzzKubeConfig(f *testing.F) {
	f.Add([]byte(common))
	f.Add(kubeconfig(f, object{"server": "http://127.0.0.1:8001"}, object{"token": "x", "as": "y"}))
	f.Add([]byte("a: &a [*a, *a]"))
	dir := folder(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) {
		chosen, err := parseKubeConfig(data)
		if err != nil {
			return
		}
		a, err := chosen.access(dir)
		if err != nil {
			return
		}
		if a.server == nil || a.server.Host == "" || a.server.Scheme != "https" && !strings.Contains("localhost 127. ::1", a.server.Hostname()[:3]) {
			t.Fatalf("server %v", a.server)
		}
		if strings.ContainsAny(a.token, "\r\n") || (a.cert == "") != (a.key == "") {
			t.Fatal("half an identity")
		}
	})
}
