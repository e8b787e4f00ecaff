// Package kube runs a real kube-apiserver, on an etcd in this process, for tests of what Lanyard does with Kubernetes: there
// are namespaces, service accounts, nodes, pods and their tokens, and no kubelet, so that nothing runs. All is on loopback
// addresses and in temporary directories. It knows nothing of Lanyard.
package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const (
	// adminToken and IssuerToken are bearer tokens of the two users there are: one who may do all, and one who may do what
	// SPIRE's documentation says that a server must: create token reviews, get pods and nodes.
	adminToken  = "admin-token"
	IssuerToken = "issuer-token"

	startLimit = time.Minute
)

// Binary is the path of a kube-apiserver: in the folder $LANYARD_KUBE, or else in .tools/kube below root, the repository's.
// It is "" where there is none; integration/tools/kube.sh builds one.
func Binary(root string) string {
	dir := os.Getenv("LANYARD_KUBE")
	if dir == "" {
		dir = filepath.Join(root, ".tools", "kube")
	}
	path := filepath.Join(dir, "kube-apiserver")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// Skipped is why a test that needs Binary is skipped.
const Skipped = "no kube-apiserver in $LANYARD_KUBE or .tools/kube: integration/tools/kube.sh builds one, and make soak does"

// Cluster is a running API server.
type Cluster struct {
	t      harness.T
	stage  *harness.Stage
	URL    string
	CAFile string // of its certificate
	client *http.Client
}

// Start starts a cluster that ends with the test, and waits until it is ready.
func Start(t harness.T, binary string) *Cluster {
	t.Helper()
	etcd := startEtcd(t)
	s := harness.NewStage(t, "") // after etcd's, so that it ends before
	certs := s.Path("certs", "apiserver.crt")
	args := []string{
		"--etcd-servers", etcd,
		"--bind-address", "127.0.0.1",
		"--cert-dir", filepath.Dir(certs), // it makes itself a certificate there
		"--advertise-address", "127.0.0.1",
		"--endpoint-reconciler-type", "none",
		"--service-cluster-ip-range", "10.0.0.0/24",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", s.Path("sa.pub"),
		"--service-account-signing-key-file", s.Path("sa.key"),
		"--api-audiences", "https://kubernetes.default.svc",
		"--authorization-mode", "RBAC",
		"--token-auth-file", s.WriteFile("tokens.csv", adminToken+",admin,uid-admin,\"system:masters\"\n"+IssuerToken+",issuer,uid-issuer\n"),
	}
	writeKeys(t, s.Path("sa.key"), s.Path("sa.pub"))
	addr := s.Addr()
	_, port, ok := cutPort(addr)
	if !ok {
		t.Fatalf("%s has no port", addr)
	}
	p := s.Start("kube-apiserver", binary, append(args, "--secure-port", port)...)
	t.Cleanup(p.Kill) // it would take some seconds to end by itself
	c := &Cluster{t: t, stage: s, URL: "https://" + addr, CAFile: certs}
	c.waitReady(p)
	c.mayBeAsked()
	return c
}

// waitReady waits until the API server is ready.
func (c *Cluster) waitReady(p *harness.Process) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), startLimit)
	defer cancel()
	var last error
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if last = c.ready(ctx); last == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.Done():
			c.t.Fatalf("kube-apiserver ended: %v\n%s", p.Wait(), p.Log.Tail(20))
		case <-ctx.Done():
			c.t.Fatalf("kube-apiserver is not ready: %v\n%s", last, p.Log.Tail(20))
		}
	}
}

func (c *Cluster) ready(ctx context.Context) error {
	if c.client == nil {
		ca, err := os.ReadFile(c.CAFile)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return errors.New("no certificate yet")
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		c.client = &http.Client{Transport: transport}
		c.t.Cleanup(transport.CloseIdleConnections)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	response, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}

// writeKeys makes the key that service account tokens are signed with.
func writeKeys(t harness.T, private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	privateDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for path, block := range map[string]*pem.Block{
		private: {Type: "EC PRIVATE KEY", Bytes: privateDER},
		public:  {Type: "PUBLIC KEY", Bytes: publicDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
	}
}
