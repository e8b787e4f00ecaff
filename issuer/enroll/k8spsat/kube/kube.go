// Package kube owns the issuer's way to the API server of a Kubernetes cluster: who it is there, by a kubeconfig file or by
// the pod it runs in, and the three questions it has: whose a token is, what a pod and what a node is like. It decides
// nothing about the answers, and keeps none.
//
// It is written on net/http and not on client-go. Measured on lanyard-issuer (linux/amd64, stripped; MiB on disk, MiB
// resident when idle): 26.6 and 47.3 without; 30.8 and 51.5 with no more of client-go than rest and clientcmd, which read
// kubeconfig files and make an http.Client; 34.7 and 52.1 with its REST client and the types of core/v1 and
// authentication/v1; 50.6 and 62.7 with its clientset. Every issuer would pay that, most of which never see Kubernetes. So
// kubeconfig is read here, with all that can be in one today: certificates, tokens, their files, credential plugins,
// proxies, impersonation.
package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// maxAnswer bounds an answer in bytes. A pod is at most 1.5 MiB in the cluster's own etcd.
	maxAnswer = 4 << 20
	// maxCalls bounds calls in progress to a cluster, so that strangers who try to join can't make more.
	maxCalls = 16
)

// Config says which cluster.
type Config struct {
	// KubeConfigFile names the cluster and who the issuer is there, by its current context. It and the files that it
	// names are read again with each call. "" is the cluster that the issuer runs in, by its pod's service account.
	KubeConfigFile string
	// Log may be nil.
	Log *slog.Logger
	// Getenv is os.Getenv if nil.
	Getenv func(string) string
	// PodFiles is where a pod finds its service account; "" is where Kubernetes puts it.
	PodFiles string
}

// Client asks one cluster. It is safe for concurrent use.
type Client struct {
	cfg   Config
	calls chan struct{} // one in it for each call in progress
	exec  plugin

	mu     sync.Mutex
	of     connection // what transport is for
	client *http.Client
	warned bool
	file   []byte // the kubeconfig file that choice is of; nil at first
	choice choice
}

// New returns a client. It reads nothing yet.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.PodFiles == "" {
		cfg.PodFiles = podFiles
	}
	return &Client{cfg: cfg, calls: make(chan struct{}, maxCalls)}
}

// Check reads the kubeconfig file, or the pod's, and what they name, and reports what is wrong with them. It connects to
// nothing.
func (c *Client) Check() error {
	a, err := c.access()
	if err != nil {
		return err
	}
	_, err = a.transport()
	return err
}

// Close ends connections that are not in use.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
}

// call is one request.
type call struct {
	method, path string
	accept       string
	body         any // nil for none
}

// do makes a call and decodes its answer into out. A plugin's credentials that the API server doesn't take are asked for
// anew, once.
func (c *Client) do(ctx context.Context, call call, out any) error {
	select {
	case c.calls <- struct{}{}:
		defer func() { <-c.calls }()
	case <-ctx.Done():
		return fmt.Errorf("too many calls to this cluster are in progress: %w", context.Cause(ctx))
	}
	err := c.try(ctx, call, out)
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized && c.exec.forget() {
		err = c.try(ctx, call, out)
	}
	return err
}

func (c *Client) try(ctx context.Context, call call, out any) error {
	a, err := c.access()
	if err != nil {
		return err
	}
	if a.exec != nil {
		if err := c.exec.fill(ctx, &a); err != nil {
			return err
		}
	}
	client, err := c.clientFor(a)
	if err != nil {
		return err
	}
	r, err := request(ctx, a, call)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("cannot ask the API server: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the API server's answer: %w", err)
	case len(answer) > maxAnswer:
		return fmt.Errorf("the API server's answer to %s has more than %d bytes", call.path, maxAnswer)
	case response.StatusCode/100 != 2:
		return &APIError{Status: response.StatusCode, Message: statusMessage(answer)}
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the API server's answer to %s is not what it should be: %w", call.path, err)
	}
	return nil
}

func request(ctx context.Context, a access, call call) (*http.Request, error) {
	var body io.Reader
	if call.body != nil {
		data, err := json.Marshal(call.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, call.method, a.server.JoinPath(call.path).String(), body)
	if err != nil {
		return nil, err
	}
	r.Header = a.headers.Clone()
	r.Header.Set("Accept", call.accept)
	r.Header.Set("User-Agent", "lanyard-issuer")
	if call.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	switch {
	case a.token != "":
		r.Header.Set("Authorization", "Bearer "+a.token)
	case a.username != "":
		r.SetBasicAuth(a.username, a.password)
	}
	return r, nil
}

// clientFor returns an HTTP client for a: the last one, unless something about the connection has changed since.
func (c *Client) clientFor(a access) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil && c.of == a.connection {
		return c.client, nil
	}
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	if a.insecure && !c.warned {
		c.warned = true
		c.cfg.Log.Warn("insecure-skip-tls-verify: whoever answers at the address of this API server decides who joins",
			"kube_config_file", c.cfg.KubeConfigFile, "server", a.server.Redacted())
	}
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	c.of = a.connection
	c.client = &http.Client{
		Transport:     transport,
		Timeout:       30 * time.Second, // callers have less
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.client, nil
}
