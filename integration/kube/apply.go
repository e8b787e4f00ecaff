package kube

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
)

// resources are where objects of a kind are made.
var resources = map[string]string{
	"Namespace": "/api/v1/namespaces", "ServiceAccount": "/api/v1/%sserviceaccounts", "ConfigMap": "/api/v1/%sconfigmaps",
	"ClusterRole":        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"DaemonSet":          "/apis/apps/v1/%sdaemonsets",
}

var (
	kindLine      = regexp.MustCompile(`(?m)^kind: (\S+)`)
	namespaceLine = regexp.MustCompile(`(?m)^  namespace: (\S+)`)
)

// Apply makes the objects of a YAML file, one after the other. A field that the API server doesn't know is an error.
func (c *Cluster) Apply(file string) {
	c.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	for one := range strings.SplitSeq(string(text), "\n---\n") {
		if err := c.apply(one); err != nil {
			c.t.Fatalf("%s: %v in:\n%s", file, err, one)
		}
	}
}

func (c *Cluster) apply(text string) error {
	kind := kindLine.FindStringSubmatch(text)
	if kind == nil || resources[kind[1]] == "" {
		return fmt.Errorf("no kind that is known here")
	}
	path := resources[kind[1]]
	if in := namespaceLine.FindStringSubmatch(text); in != nil && strings.Contains(path, "%s") {
		path = fmt.Sprintf(path, "namespaces/"+in[1]+"/")
	}
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.URL+path+"?fieldValidation=Strict", bytes.NewReader([]byte(text)))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/yaml")
	response, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return err
}

// ConfigMap returns what a ConfigMap has by that key.
func (c *Cluster) ConfigMap(namespace, name, key string) string {
	c.t.Helper()
	var found struct{ Data map[string]string }
	c.must(http.MethodGet, "/api/v1/namespaces/"+namespace+"/configmaps/"+name, nil, &found)
	return found.Data[key]
}
