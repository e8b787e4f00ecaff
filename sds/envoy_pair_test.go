package sds

import (
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

// pair is a client's Envoy that speaks to a server's, each over a Workload API
// and an SDS bridge of its own.
type pair struct {
	ca                   *testca.CA
	clientAPI, serverAPI *workloadtest.Server
	client, server       *proxy
	address              string // where the client's Envoy takes plain bytes
}

const (
	clientID = "spiffe://one.test/client"
	serverID = "spiffe://one.test/server"
)

// startPair starts both, with change applied to the options of each, in front of
// an HTTP server that answers "hello".
func startPair(t *testing.T, change func(*BootstrapOptions)) *pair {
	t.Helper()
	envoyBinary(t)
	p := &pair{ca: testca.New(t, "one.test"), clientAPI: workloadtest.New(t), serverAPI: workloadtest.New(t), address: freeAddress(t)}
	p.clientAPI.Start(t)
	p.serverAPI.Start(t)
	p.set(t, p.clientAPI, p.ca.SVID(t, clientID))
	p.set(t, p.serverAPI, p.ca.SVID(t, serverID))
	between := freeAddress(t)

	inbound := BootstrapOptions{NodeID: "server", SDSSocket: startBridge(t, p.serverAPI), Inbound: &Leg{
		Listen: between, Target: serveHello(t), Peers: []spiffeid.ID{spiffeid.RequireFromString(clientID)},
	}}
	outbound := BootstrapOptions{NodeID: "client", SDSSocket: startBridge(t, p.clientAPI), Outbound: &Leg{
		Listen: p.address, Target: between, Peers: []spiffeid.ID{spiffeid.RequireFromString(serverID)},
	}}
	change(&inbound)
	change(&outbound)
	p.server, p.client = startEnvoy(t, inbound), startEnvoy(t, outbound)
	p.server.ready()
	p.client.ready()
	return p
}

// set makes svid what api serves, with the pair's bundle, which is also that of
// svid's trust domain if it is another one: a Workload API always sends one.
func (p *pair) set(t testing.TB, api *workloadtest.Server, svid *x509svid.SVID) {
	t.Helper()
	bundles := []*x509bundle.Bundle{p.ca.Bundle()}
	if td := svid.ID.TrustDomain(); td != p.ca.TrustDomain {
		bundles = append(bundles, x509bundle.FromX509Authorities(td, []*x509.Certificate{p.ca.Cert}))
	}
	api.Set(t, []*x509svid.SVID{svid}, bundles...)
}

func serveHello(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// newClient returns an HTTP client that keeps its connection.
func newClient(t testing.TB) *http.Client {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 5 * time.Second, Transport: transport}
}

// hello asks for one page, on a new connection if so said.
func (p *pair) hello(c *http.Client, fresh bool) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+p.address, nil)
	if err != nil {
		return err
	}
	req.Close = fresh
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("status %s, body %q", resp.Status, body)
	}
	return err
}
