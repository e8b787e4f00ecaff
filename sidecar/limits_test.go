package sidecar_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
)

// tight is a pair whose server has limits.
func tight(t *testing.T, target string, limits accept.Limits) *pair {
	t.Helper()
	return newPair(t, target, func(_, server *spec) { server.Limits = limits })
}

// Gap 26: beyond its limit a tunnel's clients wait, and nobody is refused.
func TestGap26ConnectionsOfATunnelAreLimited(t *testing.T) {
	p := tight(t, backend(t, echo), accept.Limits{Connections: 2})
	first, second := dial(t, p.client.addr), dial(t, p.client.addr)
	exchange(t, first, "x")
	exchange(t, second, "x")
	waiting := make(chan error, 3)
	for range cap(waiting) {
		go func() {
			_, err := roundTrip(t, p.client.addr, "x")
			waiting <- err
		}()
	}
	exchange(t, first, "goes on")
	first.Close() // the others have its place in turn
	for range cap(waiting) {
		check(t, <-waiting)
	}
	exchange(t, second, "goes on")
	for _, rec := range p.server.log.connections(4) {
		if rec["cause"] != "closed" && rec["cause"] != "reset" {
			t.Errorf("%v", rec)
		}
	}
}

// Gap 26: one peer can't have all of a tunnel.
func TestGap26ConnectionsOfAPeerAreLimited(t *testing.T) {
	p := tight(t, backend(t, echo), accept.Limits{PerPeer: 1})
	first := dial(t, p.client.addr)
	exchange(t, first, "x")
	if got, err := roundTrip(t, p.client.addr, "x"); got != "" || isCleanEnd(err) {
		t.Errorf("%q, %v", got, err)
	}
	p.server.log.want(map[string]any{"cause": "refused: limit", "level": "WARN", "peer_spiffe_id": webID,
		"error": webID + " has 1 connections open already (limits.per_peer)", "forwarded": 0})
	check(t, first.CloseWrite())
	_, err := io.ReadAll(first)
	check(t, err)
	p.server.log.connections(2)
	if got, err := roundTrip(t, p.client.addr, "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// silent is a target that answers once and does nothing more, whatever its client does.
func silent(t *testing.T) string {
	over := make(chan struct{})
	addr := backend(t, func(c *net.TCPConn) {
		io.CopyN(c, c, 1)
		<-over
	})
	t.Cleanup(func() { close(over) })
	return addr
}

// What ends a connection besides its ends is told as the cause, and to both ends as a cut, not as an end in order.
func TestTimeLimitsOfAConnection(t *testing.T) {
	const soon = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		change func(client *spec)
		level  string
		error  string
	}{
		"idle timeout":  {func(c *spec) { c.IdleTimeout = soon }, "INFO", "no byte moved for 100ms"},
		"max age":       {func(c *spec) { c.MaxAge = soon }, "INFO", "the connection reached its greatest age"},
		"close timeout": {func(c *spec) { c.CloseTimeout = soon }, "WARN", "one direction had ended"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, silent(t), func(client, _ *spec) { tt.change(client) })
			c := dial(t, p.client.addr)
			_, err := io.WriteString(c, "x")
			check(t, err)
			if name == "close timeout" {
				check(t, c.CloseWrite())
			}
			if _, err := io.ReadAll(c); err == nil {
				t.Error("the application took it for the end")
			}
			p.client.log.want(map[string]any{"cause": name, "level": tt.level, "error": "~" + tt.error})
			p.server.log.want(map[string]any{"cause": "reset"})
		})
	}
}

// A close timeout of nothing ends a connection with its first half, once what was said has arrived.
func TestCloseTimeoutOfNothing(t *testing.T) {
	answer := strings.Repeat("answer", 50_000)
	p := newPair(t, backend(t, func(c *net.TCPConn) {
		io.WriteString(c, answer)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}), func(client, _ *spec) { client.CloseTimeout = -1 })
	c := dial(t, p.client.addr)
	got, err := io.ReadAll(c)
	if string(got) != answer || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	p.client.log.want(map[string]any{"cause": "closed", "level": "INFO", "returned": len(answer)})
}
