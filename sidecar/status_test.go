package sidecar_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

func getStatus(t *testing.T, network, addr string) (int, status.Response) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: limit}).Get("http://status" + status.Path)
	check(t, err)
	defer resp.Body.Close()
	var body status.Response
	check(t, json.NewDecoder(resp.Body).Decode(&body))
	return resp.StatusCode, body
}

func TestStatus(t *testing.T) {
	ca := testca.New(t, "one.test")
	a := workloadtest.New(t)
	target := backend(t, echo)
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: target}, AllowAll: true, WorkloadAPIAddr: a.Addr(), Status: "http://127.0.0.1:0"})
	r.log.await("no stream from the Workload API, trying again", 1)
	code, body := getStatus(t, "tcp", r.status)
	if code != 503 || body.OK || body.Status != "critical" || body.Message != "listening" || body.Identity.OK || body.WorkloadAPI.Connected ||
		body.WorkloadAPI.Error == "" || body.Identity.Error == "" || body.BackendOK == nil || !*body.BackendOK {
		t.Errorf("before the agent: %d, %+v", code, body)
	}
	svid := ca.SVID(t, dbID)
	a.Set(t, []*x509svid.SVID{svid}, ca.Bundle())
	a.Start(t)
	r.log.await("identity received", 1)
	code, body = getStatus(t, "tcp", r.status)
	if code != 200 || !body.OK || body.Status != "ok" || body.Identity.SPIFFEID != dbID || body.Identity.LastUpdate == nil ||
		body.Identity.NotAfter == nil || !body.Identity.NotAfter.Equal(svid.Certificates[0].NotAfter) || !body.WorkloadAPI.Connected ||
		body.ForwardAddress != target {
		t.Errorf("with an identity: %d, %+v", code, body)
	}
	// An expired SVID is shown, and is not healthy.
	now := time.Now()
	a.Set(t, []*x509svid.SVID{ca.SVID(t, dbID, testca.Lifetime(now.Add(-time.Hour), now.Add(-time.Second)))}, ca.Bundle())
	r.log.await("identity received", 2)
	code, body = getStatus(t, "tcp", r.status)
	if code != 503 || body.OK || body.Identity.OK || body.Identity.SPIFFEID != dbID || !strings.Contains(body.Identity.Error, "expired") {
		t.Errorf("with an expired identity: %d, %+v", code, body)
	}
	resp, err := http.Get("http://" + r.status + "/other")
	check(t, err)
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("another path: %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

// While it drains, a sidecar still tells how it is: not ready.
func TestStatusWhileDraining(t *testing.T) {
	path := filepath.Join(socketDir(t), "status")
	p := newPair(t, backend(t, echo), func(client, _ *spec) { client.Status = "unix:" + path })
	c := dial(t, p.client.addr)
	exchange(t, c, "x")
	if code, body := getStatus(t, "unix", path); code != 200 || body.Connections != 1 || body.BackendOK == nil || !*body.BackendOK {
		t.Errorf("%d, %+v", code, body)
	}
	p.client.cancel()
	p.client.log.await("shutting down", 1)
	if code, body := getStatus(t, "unix", path); code != 503 || body.Message != "stopping" || !body.Identity.OK {
		t.Errorf("%d, %+v", code, body)
	}
	c.Close()
	if err := p.client.wait(t); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the status socket stayed: %v", err)
	}
}

func TestStatusBackendDown(t *testing.T) {
	ca := testca.New(t, "one.test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l.Close()
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: l.Addr().String()}, AllowAll: true, Status: "http://127.0.0.1:0", WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	r.log.await("identity received", 1)
	code, body := getStatus(t, "tcp", r.status)
	if code != 503 || body.OK || *body.BackendOK || body.BackendStatus != "critical" || !strings.Contains(body.BackendError, "refused") {
		t.Errorf("%d, %+v", code, body)
	}
}

// The certificate of the status port is the tunnel's. Once it has expired, health is told all the same.
func TestStatusOverHTTPSOutlivesItsCertificate(t *testing.T) {
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, dbID)
	a := agent(t, svid, ca.Bundle())
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: a.Addr(), Status: "127.0.0.1:0"})
	get := func() (shown *x509.Certificate, code int) {
		t.Helper()
		client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		resp, err := client.Get("https://" + r.status + status.Path)
		check(t, err)
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0], resp.StatusCode
	}
	r.log.await("identity received", 1)
	if shown, code := get(); !shown.Equal(svid.Certificates[0]) || code != 200 {
		t.Errorf("%d, %v", code, shown.URIs)
	}
	now := time.Now()
	a.Set(t, []*x509svid.SVID{ca.SVID(t, dbID, testca.Lifetime(now.Add(-time.Hour), now.Add(-time.Second)))}, ca.Bundle())
	r.log.await("identity received", 2)
	if shown, code := get(); !shown.Equal(svid.Certificates[0]) || code != 503 {
		t.Errorf("%d, %v", code, shown.URIs)
	}
}
