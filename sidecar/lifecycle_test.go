package sidecar_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/status"
)

// A connection that comes before the identity waits for it.
func TestStartsBeforeTheAgent(t *testing.T) {
	ca := testca.New(t, "one.test")
	server := start(t, sidecar.Config{Mode: sidecar.Server, Target: backend(t, echo), AllowAll: true,
		WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	late := workloadtest.New(t)
	client := start(t, sidecar.Config{Mode: sidecar.Client, Target: server.addr, WorkloadAPIAddr: late.Addr(), ConnectTimeout: limit})
	c := dial(t, client.addr)
	_, err := io.WriteString(c, "early")
	check(t, err)
	client.log.await("no stream from the Workload API, trying again", 1)
	late.Set(t, []*x509svid.SVID{ca.SVID(t, webID)}, ca.Bundle())
	late.Start(t)
	check(t, c.CloseWrite())
	if got, err := io.ReadAll(c); string(got) != "early" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	client.log.want(map[string]any{"cause": "closed", "spiffe_id": webID})
}

func TestNoIdentityYet(t *testing.T) {
	for _, mode := range []sidecar.Mode{sidecar.Client, sidecar.Server} {
		t.Run(string(mode), func(t *testing.T) {
			absent := workloadtest.New(t)
			r := start(t, sidecar.Config{Mode: mode, Target: "127.0.0.1:1", AllowAll: mode == sidecar.Server,
				WorkloadAPIAddr: absent.Addr(), ConnectTimeout: 50 * time.Millisecond})
			c := dial(t, r.addr)
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes", n)
			}
			r.log.want(map[string]any{"cause": "no identity yet", "level": "WARN", "spiffe_id": "", "peer_spiffe_id": "", "error": "~no identity yet: rpc error"})
		})
	}
}

// What the Workload API withdraws is used no more; what it merely does not
// repeat is used until it expires.
func TestIdentityLostAndFound(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *sidecar.Config) { client.ConnectTimeout = 100 * time.Millisecond })
	asked := 0
	ask := func() error {
		got, err := roundTrip(t, p.client.addr, "x")
		asked++
		p.client.log.connections(asked)
		if err == nil && got != "x" {
			t.Fatalf("got %q", got)
		}
		return err
	}
	check(t, ask())
	p.webAgent.Fail(codes.Unavailable)
	p.client.log.await("no stream from the Workload API, trying again", 1)
	check(t, ask())
	p.webAgent.Stop()
	check(t, ask())
	p.webAgent.Fail(codes.PermissionDenied)
	p.webAgent.Start(t)
	p.client.log.await("no stream from the Workload API, trying again", 2)
	if err := ask(); err == nil {
		t.Error("the withdrawn identity was used")
	}
	recs := p.client.log.connections(4)
	if last := recs[3]; last["cause"] != "no identity yet" || !strings.Contains(last["error"].(string), "PermissionDenied") {
		t.Errorf("%v", last)
	}
	// An expired identity is none either.
	now := time.Now()
	p.webAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, webID, testca.Lifetime(now.Add(-time.Hour), now.Add(-time.Second)))}, p.ca.Bundle())
	p.client.log.await("identity received", 2)
	if err := ask(); err == nil {
		t.Error("the expired identity was used")
	}
	if last := p.client.log.connections(5)[4]; last["cause"] != "no identity yet" || !strings.Contains(last["error"].(string), "expired") {
		t.Errorf("%v", last)
	}
}

func TestSPIFFEIDPicksTheSVID(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *sidecar.Config) { client.SPIFFEID = spiffeid.RequireFromString(webID) })
	p.client.log.await("identity received", 1)
	p.webAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, "spiffe://one.test/first"), p.ca.SVID(t, webID)}, p.ca.Bundle())
	p.client.log.await("identity received", 2)
	if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	p.server.log.want(map[string]any{"peer_spiffe_id": webID})
}

// Told to stop, a sidecar takes no more connections, and lets the open ones end.
func TestDrain(t *testing.T) {
	p := newPair(t, backend(t, echo))
	c := dial(t, p.client.addr)
	exchange(t, c, "before")
	p.client.cancel()
	p.server.cancel()
	p.client.log.await("shutting down", 1)
	p.server.log.await("shutting down", 1)
	exchange(t, c, "while draining")
	waitRefused(t, p.client.addr)
	check(t, c.CloseWrite())
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	if err := p.client.wait(t); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := p.server.wait(t); err != nil {
		t.Errorf("server: %v", err)
	}
	p.client.log.want(map[string]any{"cause": "closed", "drained": true, "forwarded": 20})
	p.server.log.want(map[string]any{"cause": "closed", "drained": true})
}

func exchange(t *testing.T, c net.Conn, msg string) {
	t.Helper()
	_, err := io.WriteString(c, msg)
	check(t, err)
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != msg {
		t.Fatalf("%q, %v", got, err)
	}
}

// waitRefused waits until nobody listens on addr.
func waitRefused(t *testing.T, addr string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s still accepts", addr)
		}
		runtime.Gosched()
	}
}

func TestDrainTimeout(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *sidecar.Config) { client.ShutdownTimeout = 50 * time.Millisecond })
	c := dial(t, p.client.addr)
	exchange(t, c, "before")
	err := p.client.stop(t)
	if err == nil || err.Error() != "--shutdown-timeout 50ms passed with 1 connections still open: closed them" {
		t.Errorf("Run: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); isCleanEnd(err) {
		t.Error("the application took it for the end")
	}
	p.client.log.want(map[string]any{"cause": "shutdown", "level": "WARN", "drained": true, "forwarded": 6, "error": "~--shutdown-timeout 50ms"})
	p.server.log.want(map[string]any{"cause": "reset"})
}

// A client that never gets on with its handshake is gone after the connect
// timeout, and holds up nobody.
func TestSlowHandshake(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, sidecar.Config{Mode: sidecar.Server, Target: backend(t, echo), AllowAll: true, ConnectTimeout: 100 * time.Millisecond,
		WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	r.log.await("identity received", 1)
	c := dial(t, r.addr)
	_, err := c.Write([]byte{22, 3, 1, 1}) // the start of a ClientHello
	check(t, err)
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	r.log.want(map[string]any{"cause": "handshake timeout", "level": "WARN", "error": "--connect-timeout passed", "peer_spiffe_id": ""})
}

func TestHandshakeWithGarbage(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, sidecar.Config{Mode: sidecar.Server, Target: backend(t, echo), AllowAll: true,
		WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	c := dial(t, r.addr)
	_, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	check(t, err)
	io.Copy(io.Discard, c)
	r.log.want(map[string]any{"cause": "handshake failed", "error": "~first record does not look like a TLS handshake"})
}

func TestTLS11IsRefused(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, sidecar.Config{Mode: sidecar.Server, Target: backend(t, echo), AllowAll: true,
		WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	_, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("%v", err)
	}
}

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
	r := start(t, sidecar.Config{Mode: sidecar.Server, Target: target, AllowAll: true, WorkloadAPIAddr: a.Addr(), Status: "http://127.0.0.1:0"})
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
	p := newPair(t, backend(t, echo), func(client, _ *sidecar.Config) { client.Status = "unix:" + path })
	c := dial(t, p.client.addr)
	exchange(t, c, "x")
	if code, body := getStatus(t, "unix", path); code != 200 || body.Connections != 1 || body.BackendOK != nil {
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
	r := start(t, sidecar.Config{Mode: sidecar.Server, Target: l.Addr().String(), AllowAll: true, Status: "127.0.0.1:0",
		WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	r.log.await("identity received", 1)
	code, body := getStatus(t, "tcp", r.status)
	if code != 503 || body.OK || *body.BackendOK || body.BackendStatus != "critical" || !strings.Contains(body.BackendError, "refused") {
		t.Errorf("%d, %+v", code, body)
	}
}

// Nothing is left of a pair: no goroutine, no descriptor, no socket file.
func TestLeavesNothingBehind(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Run("pair", func(t *testing.T) {
		p := newPair(t, backend(t, echo), func(client, _ *sidecar.Config) { client.Status = "127.0.0.1:0" })
		for range 20 {
			if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		// Some vanish without a goodbye, some never say a word.
		for range 5 {
			c := dial(t, p.client.addr)
			exchange(t, c, "x")
			c.SetLinger(0)
			c.Close()
			dial(t, p.server.addr).Close()
		}
		p.client.log.connections(25)
		p.server.log.connections(30)
	})
	deadline := time.Now().Add(limit)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > fds {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before; %d descriptors, %d before\n%s", runtime.NumGoroutine(), goroutines, openFiles(t), fds, stacks())
		}
		runtime.Gosched()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}
