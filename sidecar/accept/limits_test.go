package accept_test

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
)

// await polls until ok: what it looks at has no event.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

// accepted opens a connection whose peer is not known before it says so, and waits until it is accepted.
func (r *rig) accepted() net.Conn {
	r.t.Helper()
	before := r.loop.Open()
	c := r.connect("")
	await(r.t, "accepted", func() bool { return r.loop.Open() > before })
	return c
}

// Those that have shown who they are and find the tunnel full get their turn in order, and nobody else is accepted
// before: who waits in the kernel's queue waits for as long as it likes.
func TestTheTunnelIsFullInTurn(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1}})
	var conns []net.Conn
	for range 8 {
		conns = append(conns, r.accepted())
	}
	for i, c := range conns {
		io.WriteString(c, string(rune('k'+i))+"x")
		if i == 0 {
			expect(t, c, "x")
			continue
		}
		await(t, "waiting", func() bool { return r.loop.Waiting() == int64(i) })
	}
	last := r.connect("zx")
	for i, c := range conns {
		if i > 0 {
			expect(t, c, "x")
		}
		if n := r.loop.Open(); n != int64(len(conns)-i) {
			t.Errorf("%d connections: one was accepted while %d wait for their turn", n, len(conns)-i-1)
		}
		c.Close()
	}
	expect(t, last, "x")
}

// A limit that a reload lifts lets in who waits.
func TestALiftedLimitLetsIn(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1}})
	first, second := r.accepted(), r.accepted()
	io.WriteString(first, "ax")
	expect(t, first, "x")
	io.WriteString(second, "bx")
	await(t, "waiting", func() bool { return r.loop.Waiting() == 1 })
	third := r.connect("cx")
	r.set(accept.Limits{})
	expect(t, second, "x")
	expect(t, third, "x")
}

// Whoever leaves while it waits leaves no trace, nor does one that is refused or whose target is down.
func TestPlacesAreGivenBack(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1, PerPeer: 1}, ConnectTimeout: 100 * time.Millisecond})
	first, second := r.accepted(), r.accepted()
	io.WriteString(first, "ax")
	expect(t, first, "x")
	io.WriteString(second, "bx")
	gone(t, second) // after the connect timeout
	if got := r.causes(1)[0]; !strings.HasPrefix(got, "refused: limit: the tunnel is full") {
		t.Error(got)
	}
	first.Close()
	r.causes(2)
	for range 3 { // "d" is admitted, and then its target is down
		gone(t, r.connect("d"))
	}
	expect(t, r.connect("ax"), "x")
}

// Who waits for its turn while the sidecar is forced to end was not refused by a limit.
func TestShutdownEndsThoseThatWait(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1}, ShutdownTimeout: time.Millisecond})
	first, second := r.accepted(), r.accepted()
	io.WriteString(first, "ax")
	expect(t, first, "x")
	io.WriteString(second, "bx")
	await(t, "waiting", func() bool { return r.loop.Waiting() == 1 })
	r.cancel()
	for _, cause := range r.causes(2) {
		if !strings.HasPrefix(cause, "shutdown: ") {
			t.Error(cause)
		}
	}
}
