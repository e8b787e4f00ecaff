package kube

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// kubeConfig is a kubeconfig file, version v1. What it may have besides is of kubectl only.
type kubeConfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string
		Context struct{ Cluster, User string }
	}
	Clusters []struct {
		Name    string
		Cluster kubeCluster
	}
	Users []struct {
		Name string
		User kubeUser
	}
}

type kubeCluster struct {
	Server   string
	CA       string `json:"certificate-authority"`
	CAData   string `json:"certificate-authority-data"`
	Insecure bool   `json:"insecure-skip-tls-verify"`
	TLSName  string `json:"tls-server-name"`
	ProxyURL string `json:"proxy-url"`
}

type kubeUser struct {
	Cert         string `json:"client-certificate"`
	CertData     string `json:"client-certificate-data"`
	Key          string `json:"client-key"`
	KeyData      string `json:"client-key-data"`
	Token        string
	TokenFile    string
	Username     string
	Password     string
	As           string
	AsUID        string                 `json:"as-uid"`
	AsGroups     []string               `json:"as-groups"`
	AsUserExtra  map[string][]string    `json:"as-user-extra"`
	AuthProvider *struct{ Name string } `json:"auth-provider"`
	Exec         *execConfig
}

// choice is what the current context names. It is not modified.
type choice struct {
	cluster kubeCluster
	user    kubeUser
}

// parseKubeConfig reads a kubeconfig file. Its errors, and those of access, repeat nothing of what may be a secret.
func parseKubeConfig(data []byte) (choice, error) {
	var file kubeConfig
	if yaml.Unmarshal(data, &file) != nil { // its errors quote what they find
		return choice{}, errors.New("not a kubeconfig file: it must be YAML with clusters, users and contexts")
	}
	return file.current()
}

// access reads the files that are named, in the folder where relative paths start.
func (c choice) access(in folder) (access, error) {
	a := access{headers: http.Header{}}
	var err error
	if a.server, err = parseServer(c.cluster.Server); err != nil {
		return access{}, err
	}
	a.insecure, a.serverName, a.proxy = c.cluster.Insecure, c.cluster.TLSName, c.cluster.ProxyURL
	if a.ca, err = in.content("certificate-authority", c.cluster.CA, c.cluster.CAData); err != nil {
		return access{}, err
	}
	if a.insecure && a.ca != "" {
		return access{}, errors.New("certificate-authority and insecure-skip-tls-verify exclude each other")
	}
	return a, in.identity(c.user, &a)
}

// current is the cluster and the user of the current context. A context without a user is of nobody.
func (f kubeConfig) current() (choice, error) {
	if f.CurrentContext == "" {
		return choice{}, errors.New("current-context is missing: name one of the contexts")
	}
	for _, c := range f.Contexts {
		if c.Name == f.CurrentContext {
			return f.named(c.Name, c.Context.Cluster, c.Context.User)
		}
	}
	return choice{}, fmt.Errorf("current-context %q is none of the contexts", f.CurrentContext)
}

func (f kubeConfig) named(context, cluster, user string) (found choice, err error) {
	err = fmt.Errorf("context %q has the cluster %q, which is none of the clusters", context, cluster)
	for _, one := range f.Clusters {
		if one.Name == cluster {
			found.cluster, err = one.Cluster, nil
		}
	}
	if err != nil || user == "" {
		return found, err
	}
	for _, one := range f.Users {
		if one.Name == user {
			found.user = one.User
			return found, nil
		}
	}
	return choice{}, fmt.Errorf("context %q has the user %q, who is none of the users", context, user)
}

// folder is where paths in a kubeconfig file start.
type folder string

func (in folder) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(string(in), name)
}

// content is that of a key that is given in base64 as KEY-data, or else as a file.
func (in folder) content(key, file, data string) (string, error) {
	switch {
	case data != "":
		content, err := base64.StdEncoding.DecodeString(strings.TrimSpace(data))
		if err != nil {
			return "", fmt.Errorf("%s-data is not base64", key)
		}
		return string(content), nil
	case file != "":
		content, err := readFile(in.path(file))
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		return string(content), nil
	}
	return "", nil
}

// identity adds who user is.
func (in folder) identity(user kubeUser, a *access) (err error) {
	if user.AuthProvider != nil {
		return fmt.Errorf("user has the auth-provider %q: Kubernetes has none any more, use a token or a credential plugin (exec)", user.AuthProvider.Name)
	}
	if a.cert, err = in.content("client-certificate", user.Cert, user.CertData); err != nil {
		return err
	}
	if a.key, err = in.content("client-key", user.Key, user.KeyData); err != nil {
		return err
	}
	if (a.cert == "") != (a.key == "") {
		return errors.New("client-certificate and client-key go together: one is missing")
	}
	a.token, a.username, a.password = user.Token, user.Username, user.Password
	if user.TokenFile != "" {
		token, err := readFile(in.path(user.TokenFile))
		if err != nil {
			return fmt.Errorf("tokenFile: %w", err)
		}
		a.token = strings.TrimSpace(string(token))
	}
	if strings.ContainsAny(a.token, " \r\n\t") {
		return errors.New("the token has white space in it")
	}
	if user.Exec != nil {
		plugin := *user.Exec
		if err := plugin.check(in); err != nil {
			return err
		}
		a.exec = &plugin
	}
	impersonate(user, a.headers)
	return nil
}

// impersonate sets the headers by which one user acts as another.
func impersonate(user kubeUser, headers http.Header) {
	if user.As != "" {
		headers.Set("Impersonate-User", user.As)
	}
	if user.AsUID != "" {
		headers.Set("Impersonate-Uid", user.AsUID)
	}
	for _, group := range user.AsGroups {
		headers.Add("Impersonate-Group", group)
	}
	for key, values := range user.AsUserExtra {
		for _, value := range values {
			headers.Add("Impersonate-Extra-"+url.PathEscape(strings.ToLower(key)), value)
		}
	}
}
