package sidecar_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar"
)

func TestPairEcho(t *testing.T) {
	target := backend(t, echo)
	p := newPair(t, target)
	got, err := roundTrip(t, p.client.addr, "hello")
	if got != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	p.client.log.want(map[string]any{"direction": "outbound", "cause": "closed", "level": "INFO", "target": p.server.addr,
		"spiffe_id": webID, "peer_spiffe_id": dbID, "rule": "own trust domain", "forwarded": 5, "returned": 5, "error": nil, "client": "~127.0.0.1:"})
	rec := p.server.log.want(map[string]any{"direction": "inbound", "cause": "closed", "level": "INFO", "target": target,
		"spiffe_id": dbID, "peer_spiffe_id": webID, "rule": "--allow-uri " + webID, "forwarded": 5, "returned": 5, "error": nil, "client": "~127.0.0.1:"})
	if d, _ := rec["duration"].(float64); d <= 0 {
		t.Errorf("duration %v", rec["duration"])
	}
}

// Each end may be done long before the other is.
func TestPairHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		answer := bytes.Repeat([]byte("answer"), 100_000)
		p := newPair(t, backend(t, func(c *net.TCPConn) {
			if q, err := io.ReadAll(c); string(q) != "question" || err != nil {
				t.Errorf("%q, %v", q, err)
			}
			c.Write(answer)
		}))
		got, err := roundTrip(t, p.client.addr, "question")
		if err != nil || got != string(answer) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		p.client.log.want(map[string]any{"cause": "closed", "forwarded": 8, "returned": len(answer)})
		p.server.log.want(map[string]any{"cause": "closed", "forwarded": 8, "returned": len(answer)})
	})
	t.Run("server first", func(t *testing.T) {
		more := make(chan string, 1)
		p := newPair(t, backend(t, func(c *net.TCPConn) {
			io.WriteString(c, "greeting")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			more <- string(all)
		}))
		c := dial(t, p.client.addr)
		got, err := io.ReadAll(c)
		if string(got) != "greeting" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_, err = io.WriteString(c, "still talking")
		check(t, err)
		check(t, c.CloseWrite())
		if s := <-more; s != "still talking" {
			t.Errorf("the backend read %q", s)
		}
		p.server.log.want(map[string]any{"cause": "closed", "forwarded": 13, "returned": 8})
	})
}

func TestPairTransfers64MiBEachWay(t *testing.T) {
	const size = 64 << 20
	payload := make([]byte, 1<<20)
	rand.Read(payload)
	sum := func() [32]byte { return [32]byte(hashOf(payload, size)) }()
	send := func(c *net.TCPConn) error {
		for range size / len(payload) {
			if _, err := c.Write(payload); err != nil {
				return err
			}
		}
		return c.CloseWrite()
	}
	receive := func(r io.Reader) ([32]byte, error) {
		h := sha256.New()
		_, err := io.Copy(h, r)
		return [32]byte(h.Sum(nil)), err
	}
	backendSum := make(chan [32]byte, 1)
	p := newPair(t, backend(t, func(c *net.TCPConn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := send(c); err != nil {
				t.Error(err)
			}
		})
		got, err := receive(c)
		if err != nil {
			t.Error(err)
		}
		wg.Wait()
		backendSum <- got
	}))
	c := dial(t, p.client.addr)
	sent := make(chan error, 1)
	go func() { sent <- send(c) }()
	got, err := receive(c)
	check(t, err)
	check(t, <-sent)
	if got != sum || <-backendSum != sum {
		t.Error("the bytes differ")
	}
	p.client.log.want(map[string]any{"cause": "closed", "forwarded": size, "returned": size})
	p.server.log.want(map[string]any{"cause": "closed", "forwarded": size, "returned": size})
}

func hashOf(piece []byte, size int) []byte {
	h := sha256.New()
	for range size / len(piece) {
		h.Write(piece)
	}
	return h.Sum(nil)
}

// Connections that are open go on while SVIDs rotate on both ends, and each new
// one is made with what is current.
func TestPairRotationUnderLoad(t *testing.T) {
	p := newPair(t, backend(t, echo))
	p.client.log.await("identity received", 1)
	p.server.log.await("identity received", 1)
	stop, rotated := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(rotated)
		for round := 2; ; round++ {
			select {
			case <-stop:
				return
			default:
			}
			p.webAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, webID)}, p.ca.Bundle())
			p.dbAgent.Set(t, []*x509svid.SVID{p.ca.SVID(t, dbID)}, p.ca.Bundle())
			p.client.log.await("identity received", round)
			p.server.log.await("identity received", round)
		}
	}()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := converse(p.client.addr, i); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			if got, err := roundTrip(t, p.client.addr, "new"); got != "new" || err != nil {
				t.Errorf("new connection %d: %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	close(stop)
	<-rotated
	if n := len(p.server.log.await("identity received", 1)); n < 4 {
		t.Errorf("%d identities: nothing rotated meanwhile", n)
	}
	for _, rec := range append(p.client.log.connections(200), p.server.log.connections(200)...) {
		if rec["cause"] != "closed" {
			t.Errorf("%v", rec)
		}
	}
}

// converse exchanges messages for a while, each answered before the next.
func converse(addr string, seed int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	for i := range 20 {
		msg := strings.Repeat(fmt.Sprint(seed, i), 1+(seed*i)%97)
		if _, err := io.WriteString(c, msg); err != nil {
			return err
		}
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if string(got) != msg {
			return fmt.Errorf("message %d came back changed", i)
		}
	}
	return nil
}

func TestPairUnixSockets(t *testing.T) {
	dir := socketDir(t)
	l, err := net.Listen("unix", dir+"/backend")
	check(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, struct{ io.Reader }{c})
				c.Close()
			}()
		}
	}()
	p := newPair(t, "unix:"+dir+"/backend", func(client, _ *spec) { client.Listen = "unix:" + dir + "/client" })
	c, err := net.Dial("unix", p.client.addr)
	check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "over sockets")
	check(t, err)
	check(t, c.(*net.UnixConn).CloseWrite())
	got, err := io.ReadAll(c)
	if string(got) != "over sockets" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.server.log.want(map[string]any{"cause": "closed", "forwarded": 12, "returned": 12})
}

func TestBackendDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l.Close()
	p := newPair(t, l.Addr().String())
	if got, err := roundTrip(t, p.client.addr, "hello"); got != "" || isCleanEnd(err) {
		t.Errorf("%q, %v: the application took it for an answer", got, err)
	}
	p.server.log.want(map[string]any{"cause": "dial failed", "level": "WARN", "peer_spiffe_id": webID, "error": "~connection refused"})
	p.client.log.want(map[string]any{"cause": "reset"})
}

func TestTargetOfClientDown(t *testing.T) {
	ca := testca.New(t, "one.test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l.Close()
	r := start(t, spec{Tunnel: sidecar.Tunnel{Mode: sidecar.Client, Target: l.Addr().String()}, WorkloadAPIAddr: agent(t, ca.SVID(t, webID), ca.Bundle()).Addr()})
	if got, err := roundTrip(t, r.addr, "hello"); got != "" || isCleanEnd(err) {
		t.Errorf("%q, %v", got, err)
	}
	r.log.want(map[string]any{"cause": "dial failed", "spiffe_id": webID, "peer_spiffe_id": "", "error": "~connection refused"})
}
