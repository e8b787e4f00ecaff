package accept_test

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
)

// Beyond the limit clients wait; they are not refused.
func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Connections: 1}})
	first := r.connect("aone")
	expect(t, first, "one")
	second := r.connect("btwo")
	second.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Fatal("the second was served beside the first")
	}
	second.SetReadDeadline(time.Now().Add(limit))
	first.Close()
	expect(t, second, "two")
}

func TestConnectionsOfOnePeerAreRefusedBeyondItsLimit(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{PerPeer: 1}})
	first := r.connect("aone")
	expect(t, first, "one")
	gone(t, r.connect("atwo"))
	expect(t, r.connect("bone"), "one")
	if got := r.causes(1)[0]; !strings.Contains(got, "a has 1 connections open already (limits.per_peer)") {
		t.Error(got)
	}
	first.Close()
	r.causes(2)
	expect(t, r.connect("athree"), "three")
}

// Gap 26: handshakes that never end do not keep connections out.
func TestGap26HandshakeFloodGivesWay(t *testing.T) {
	r := start(t, accept.Settings{Limits: accept.Limits{Handshakes: 3}, ConnectTimeout: 5 * time.Second})
	established := r.connect("aone")
	expect(t, established, "one")
	for range 5 {
		r.connect("h")
	}
	expect(t, r.connect("btwo"), "two")
	for _, cause := range r.causes(3)[:3] {
		if !strings.HasPrefix(cause, "refused: limit: ") || !strings.Contains(cause, "too many handshakes in flight") {
			t.Error(cause)
		}
	}
	io.WriteString(established, "still")
	expect(t, established, "still")
}

// Gap 25: what moves may finish, what is silent is ended.
func TestGap25DrainEndsSilentConnections(t *testing.T) {
	r := start(t, accept.Settings{DrainIdle: 2 * time.Second})
	silent, busy := r.connect("aone"), r.connect("bone")
	expect(t, silent, "one")
	expect(t, busy, "one")
	r.cancel()
	go func() {
		for { // until the silent one is gone
			if _, err := io.WriteString(busy, "x"); err != nil {
				return
			}
			if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
				return
			}
		}
	}()
	gone(t, silent)
	if got := r.causes(1)[0]; !strings.Contains(got, "idle") {
		t.Error(got)
	}
	busy.Close()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestShutdownTimeoutEndsWhatIsLeft(t *testing.T) {
	r := start(t, accept.Settings{ShutdownTimeout: time.Millisecond})
	c := r.connect("aone")
	expect(t, c, "one")
	r.connect("h")
	for r.loop.Handshakes() == 0 {
		runtime.Gosched()
	}
	r.cancel()
	if err := r.wait(); err == nil || !strings.Contains(err.Error(), "passed with 2 connections still open") {
		t.Error(err)
	}
	gone(t, c)
	for _, cause := range r.causes(2) {
		if !strings.Contains(cause, "shutdown timeout") {
			t.Error(cause)
		}
	}
}
