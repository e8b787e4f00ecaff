package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

type object = map[string]any

// Pod is a pod that was made.
type Pod struct {
	Namespace, Name, UID string
	ServiceAccount, Node string
}

// PodSpec is a pod to make.
type PodSpec struct {
	Namespace, Name      string
	ServiceAccount, Node string // both must be there
	HostIP               string // of its status
	Labels               map[string]string
}

// Namespace makes a namespace.
func (c *Cluster) Namespace(name string) {
	c.t.Helper()
	c.must(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": name}}, nil)
}

// ServiceAccount makes a service account.
func (c *Cluster) ServiceAccount(namespace, name string) {
	c.t.Helper()
	c.must(http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts", object{"metadata": object{"name": name}}, nil)
}

// Node makes a node, and returns its UID.
func (c *Cluster) Node(name string, labels map[string]string) string {
	c.t.Helper()
	var made struct{ Metadata struct{ UID string } }
	c.must(http.MethodPost, "/api/v1/nodes", object{"metadata": object{"name": name, "labels": labels}}, &made)
	return made.Metadata.UID
}

// Pod makes a pod that is on its node, as far as the API server knows.
func (c *Cluster) Pod(spec PodSpec) Pod {
	c.t.Helper()
	var made struct{ Metadata struct{ UID string } }
	pods := "/api/v1/namespaces/" + spec.Namespace + "/pods"
	c.must(http.MethodPost, pods, object{
		"metadata": object{"name": spec.Name, "labels": spec.Labels},
		"spec": object{
			"serviceAccountName": spec.ServiceAccount, "nodeName": spec.Node,
			"containers": []object{{"name": "agent", "image": "agent"}},
		},
	}, &made)
	if spec.HostIP != "" {
		c.must(http.MethodPatch, pods+"/"+spec.Name+"/status", object{"status": object{"hostIP": spec.HostIP}}, nil)
	}
	return Pod{Namespace: spec.Namespace, Name: spec.Name, UID: made.Metadata.UID, ServiceAccount: spec.ServiceAccount, Node: spec.Node}
}

// DeletePod deletes a pod at once.
func (c *Cluster) DeletePod(pod Pod) {
	c.t.Helper()
	c.must(http.MethodDelete, "/api/v1/namespaces/"+pod.Namespace+"/pods/"+pod.Name, object{"gracePeriodSeconds": 0}, nil)
}

// Token makes a service account token as the kubelet projects it into the pod, for the audience; "" is the API server's.
func (c *Cluster) Token(pod Pod, audience string) string {
	c.t.Helper()
	return c.token(pod.Namespace, pod.ServiceAccount, audience, object{"kind": "Pod", "apiVersion": "v1", "name": pod.Name, "uid": pod.UID})
}

// LooseToken makes a service account token that is bound to no pod.
func (c *Cluster) LooseToken(namespace, account, audience string) string {
	c.t.Helper()
	return c.token(namespace, account, audience, nil)
}

func (c *Cluster) token(namespace, account, audience string, bound object) string {
	c.t.Helper()
	spec := object{"expirationSeconds": 3600, "audiences": []string{audience}}
	if audience == "" {
		delete(spec, "audiences")
	}
	if bound != nil {
		spec["boundObjectRef"] = bound
	}
	var made struct{ Status struct{ Token string } }
	c.must(http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", object{"spec": spec}, &made)
	return made.Status.Token
}

// mayBeAsked gives the user of IssuerToken what an issuer needs, and no more.
func (c *Cluster) mayBeAsked() {
	c.t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	c.must(http.MethodPost, rbac+"/clusterroles", object{
		"metadata": object{"name": "issuer"},
		"rules": []object{
			{"apiGroups": []string{"authentication.k8s.io"}, "resources": []string{"tokenreviews"}, "verbs": []string{"create"}},
			{"apiGroups": []string{""}, "resources": []string{"pods", "nodes"}, "verbs": []string{"get"}},
		},
	}, nil)
	c.must(http.MethodPost, rbac+"/clusterrolebindings", object{
		"metadata": object{"name": "issuer"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "issuer"},
		"subjects": []object{{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "issuer"}},
	}, nil)
}

// KubeConfig writes a kubeconfig file of the user with the token to path.
func (c *Cluster) KubeConfig(path, token string) string {
	c.t.Helper()
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"contexts": []object{{"name": "here", "context": object{"cluster": "here", "user": "me"}}},
		"clusters": []object{{"name": "here", "cluster": object{"server": c.URL, "certificate-authority": c.CAFile}}},
		"users":    []object{{"name": "me", "user": object{"token": token}}},
	}
	data, err := json.MarshalIndent(config, "", "  ") // which is YAML
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return path
}

// must asks the API server as the user who may do all, and decodes the answer into out unless that is nil.
func (c *Cluster) must(method, path string, body, out any) {
	c.t.Helper()
	if err := c.ask(c.t.Context(), method, path, body, out); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (c *Cluster) ask(ctx context.Context, method, path string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode/100 != 2:
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(answer)))
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}
