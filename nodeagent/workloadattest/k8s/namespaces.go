package k8s

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// namespaces asks the API server for the labels of namespaces, with the agent's
// own service account.
type namespaces struct {
	dir    string // of the service account
	reload time.Duration
	shared singleflight.Group

	mu       sync.Mutex
	client   *http.Client
	token    []byte
	loadedAt time.Time
	known    map[string]namespace
}

type namespace struct {
	labels map[string]string
	since  time.Time
}

const (
	maxNamespace  = 1 << 20 // bytes
	maxNamespaces = 1000    // that are kept
)

func newNamespaces(dir string, reload time.Duration) *namespaces {
	return &namespaces{dir: dir, reload: reload, known: map[string]namespace{}}
}

// labels returns those of one namespace, at most [fresh] old.
func (n *namespaces) labels(ctx context.Context, name string) (map[string]string, error) {
	n.mu.Lock()
	known, ok := n.known[name]
	n.mu.Unlock()
	if ok && time.Since(known.since) < fresh {
		return known.labels, nil
	}
	asked := n.shared.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		began := time.Now()
		labels, err := n.get(ctx, name)
		if err != nil {
			return nil, err
		}
		n.keep(name, namespace{labels: labels, since: began})
		return labels, nil
	})
	select {
	case got := <-asked:
		labels, _ := got.Val.(map[string]string)
		return labels, got.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *namespaces) keep(name string, of namespace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNamespaces {
		clear(n.known)
	}
	n.known[name] = of
}

func (n *namespaces) get(ctx context.Context, name string) (map[string]string, error) {
	client, token, err := n.load()
	if err != nil {
		return nil, err
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("$KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT are not set: enable_namespace_labels needs an agent that runs in a pod")
	}
	address := "https://" + net.JoinHostPort(host, port) + "/api/v1/namespaces/" + url.PathEscape(name)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json")
	response, err := client.Do(request)
	if err != nil {
		n.forget()
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		n.forget()
		return nil, fmt.Errorf("API server answers %s: the agent's service account needs the right to get namespaces", response.Status)
	}
	var object struct {
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxNamespace)).Decode(&object); err != nil {
		return nil, fmt.Errorf("answer of the API server: %w", err)
	}
	if object.Metadata.Name != name {
		return nil, fmt.Errorf("the API server answers with namespace %q", object.Metadata.Name)
	}
	return object.Metadata.Labels, nil
}

// load returns a client and a token, read anew where they are old.
func (n *namespaces) load() (*http.Client, []byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.loadedAt.IsZero() && time.Since(n.loadedAt) < n.reload {
		return n.client, n.token, nil
	}
	ca, err := os.ReadFile(filepath.Join(n.dir, "ca.crt"))
	if err != nil {
		return nil, nil, fmt.Errorf("CA of the API server: %w", err)
	}
	roots, err := pool(ca)
	if err != nil {
		return nil, nil, fmt.Errorf("CA of the API server: %s: %w", filepath.Join(n.dir, "ca.crt"), err)
	}
	token, err := readToken(filepath.Join(n.dir, "token"))
	if err != nil {
		return nil, nil, err
	}
	if n.client != nil {
		n.client.CloseIdleConnections()
	}
	n.client, n.token, n.loadedAt = newClient(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}), token, time.Now()
	return n.client, n.token, nil
}

// forget has the files read anew at the next request.
func (n *namespaces) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loadedAt = time.Time{}
}

func (n *namespaces) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		n.client.CloseIdleConnections()
	}
}
