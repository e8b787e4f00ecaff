package sidecar_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar"
)

// A connection that comes before the identity waits for it.
func TestStartsBeforeTheAgent(t *testing.T) {
	ca := testca.New(t, "one.test")
	server := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	late := workloadtest.New(t)
	client := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: server.addr, ConnectTimeout: limit}, WorkloadAPIAddr: late.Addr()})
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
			r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: mode, Target: "127.0.0.1:1", ConnectTimeout: 50 * time.Millisecond}, AllowAll: mode == sidecar.Server, WorkloadAPIAddr: absent.Addr()})
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
	p := newPair(t, backend(t, echo))
	impatient := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: p.server.addr, ConnectTimeout: 50 * time.Millisecond}, WorkloadAPIAddr: p.webAgent.Addr()})
	impatient.log.await("identity received", 1)
	mustWork := func() {
		t.Helper()
		if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	asked := 0
	mustFail := func(why string) {
		t.Helper()
		if got, err := roundTrip(t, impatient.addr, "x"); isCleanEnd(err) {
			t.Fatalf("answered %q", got)
		}
		asked++
		last := impatient.log.connections(asked)[asked-1]
		cause := "no identity yet"
		if why == "expired" {
			cause = "identity expired"
		}
		if last["cause"] != cause || !strings.Contains(last["error"].(string), why) {
			t.Errorf("%v, want an error with %q", last, why)
		}
	}
	mustWork()
	p.webAgent.Fail(codes.Unavailable)
	p.client.log.await("no stream from the Workload API, trying again", 1)
	mustWork()
	p.webAgent.Stop()
	mustWork()
	p.webAgent.Fail(codes.PermissionDenied)
	p.webAgent.Start(t)
	impatient.log.await("no stream from the Workload API, trying again", 2)
	mustFail("PermissionDenied")
	now := time.Now()
	p.webAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, webID, testca.Lifetime(now.Add(-time.Hour), now.Add(-time.Second)))}, p.ca.Bundle())
	impatient.log.await("identity received", 2)
	mustFail("expired")
}

func TestSPIFFEIDPicksTheSVID(t *testing.T) {
	p := newPair(t, backend(t, echo), func(client, _ *spec) { client.SPIFFEID = spiffeid.RequireFromString(webID) })
	p.client.log.await("identity received", 1)
	p.webAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, "spiffe://one.test/first"), p.ca.SVID(t, webID)}, p.ca.Bundle())
	p.client.log.await("identity received", 2)
	if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	p.server.log.want(map[string]any{"peer_spiffe_id": webID})
}

// A client that never gets on with its handshake is gone after the connect
// timeout, and holds up nobody.
func TestSlowHandshake(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo), ConnectTimeout: 100 * time.Millisecond}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
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
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	c := dial(t, r.addr)
	_, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	check(t, err)
	io.Copy(io.Discard, c)
	c.Close() // else it is waited for, so that it can read why
	r.log.want(map[string]any{"cause": "handshake failed", "error": "~first record does not look like a TLS handshake"})
}

func TestTLS11IsRefused(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	_, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("%v", err)
	}
}

// A handshake that fails is answered with an alert and an end in order: a reset,
// because of input that nobody read, could overtake the alert.
func TestAlertIsNotOvertaken(t *testing.T) {
	ca := testca.New(t, "one.test")
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Server, Target: backend(t, echo)}, AllowAll: true, WorkloadAPIAddr: agent(t, ca.SVID(t, dbID), ca.Bundle()).Addr()})
	conn := dial(t, r.addr)
	hasty := &hastyConn{Conn: conn, more: make([]byte, 32<<10)}
	err := tls.Client(hasty, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("the client saw %v, want an alert", err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("after the alert came %v", err)
	}
	conn.Close()
	r.log.want(map[string]any{"cause": "handshake failed"})
}

// hastyConn sends more along with the first write.
type hastyConn struct {
	net.Conn
	more []byte
}

func (c *hastyConn) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(append(b[:len(b):len(b)], c.more...))
	c.more = nil
	return len(b), err
}
