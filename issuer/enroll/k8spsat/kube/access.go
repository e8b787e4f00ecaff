package kube

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// podFiles is where a pod finds its service account.
const podFiles = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxFile bounds each file that is read, in bytes.
const maxFile = 1 << 20

// access is where an API server is, and who the issuer is there. It holds secrets: it is never printed.
type access struct {
	connection
	server             *url.URL
	token              string
	username, password string
	headers            http.Header // of impersonation; not nil
	exec               *execConfig // nil: no plugin
}

// connection is what a transport is made of; two that are equal can share one.
type connection struct {
	ca         string // PEM; "" for the system's
	cert, key  string // PEM of a client certificate, or both ""
	serverName string
	proxy      string // URL; "" for that of the environment
	insecure   bool
}

// access reads who the issuer is in the cluster.
func (c *Client) access() (access, error) {
	if c.cfg.KubeConfigFile == "" {
		return c.inCluster()
	}
	data, err := readFile(c.cfg.KubeConfigFile)
	if err != nil {
		return access{}, fmt.Errorf("kube_config_file: %w", err)
	}
	chosen, err := c.parsed(data)
	if err != nil {
		return access{}, fmt.Errorf("kube_config_file %s: %w", c.cfg.KubeConfigFile, err)
	}
	a, err := chosen.access(folder(filepath.Dir(c.cfg.KubeConfigFile)))
	if err != nil {
		return access{}, fmt.Errorf("kube_config_file %s: %w", c.cfg.KubeConfigFile, err)
	}
	return a, nil
}

// parsed is what a kubeconfig file says, parsed only if it is another than the last one: to parse YAML takes a
// millisecond, and an agent that joins needs it three times.
func (c *Client) parsed(data []byte) (choice, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil && bytes.Equal(data, c.file) {
		return c.choice, nil
	}
	chosen, err := parseKubeConfig(data)
	if err != nil {
		return choice{}, err
	}
	c.file, c.choice = data, chosen
	return chosen, nil
}

// inCluster is by the pod's own service account. Its token is renewed by the kubelet, so it is read each time.
func (c *Client) inCluster() (access, error) {
	host, port := c.cfg.Getenv("KUBERNETES_SERVICE_HOST"), c.cfg.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return access{}, errors.New("this process runs in no Kubernetes cluster (KUBERNETES_SERVICE_HOST and " +
			"KUBERNETES_SERVICE_PORT are not set): set kube_config_file")
	}
	token, err := readFile(filepath.Join(c.cfg.PodFiles, "token"))
	if err != nil {
		return access{}, fmt.Errorf("service account of this pod: %w", err)
	}
	ca, err := readFile(filepath.Join(c.cfg.PodFiles, "ca.crt"))
	if err != nil {
		return access{}, fmt.Errorf("service account of this pod: %w", err)
	}
	return access{
		connection: connection{ca: string(ca)},
		server:     &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)},
		token:      strings.TrimSpace(string(token)),
		headers:    http.Header{},
	}, nil
}

// transport makes what connects as a says. Its errors repeat nothing of a key.
func (a access) transport() (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.serverName, InsecureSkipVerify: a.insecure}
	if a.ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(a.ca)) {
			return nil, errors.New("the certificate authority of the API server has no certificate in PEM")
		}
	}
	if a.cert != "" {
		pair, err := tls.X509KeyPair([]byte(a.cert), []byte(a.key))
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	proxy := http.ProxyFromEnvironment
	if a.proxy != "" {
		u, err := url.Parse(a.proxy)
		if err != nil || u.Host == "" {
			return nil, errors.New("proxy-url is not a URL, such as http://proxy.example.org:3128")
		}
		proxy = http.ProxyURL(u)
	}
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   5 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxConnsPerHost:       maxCalls,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
	}, nil
}

// parseServer is of the API server's URL. Tokens travel with TLS, unless they don't leave this machine.
func parseServer(server string) (*url.URL, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("server is not a URL, such as https://192.0.2.1:6443")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if local := u.Hostname() == "localhost" || err == nil && addr.IsLoopback(); u.Scheme == "http" && !local {
		return nil, fmt.Errorf("server %s is not of https: tokens would travel for all to see", u)
	}
	return u, nil
}

// readFile reads a file of bounded size.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", name)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, at most %d", name, info.Size(), maxFile)
	}
	return os.ReadFile(name)
}
