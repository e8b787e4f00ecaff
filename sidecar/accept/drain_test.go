package accept_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
)

// However short the time is, an end without connections is a clean one.
func TestShutdownWithNothingLeftIsClean(t *testing.T) {
	for range 50 {
		r := start(t, accept.Settings{ShutdownTimeout: 1})
		r.cancel()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// With CloseAtOnce the end of one side is that of the connection, and as it was meant to be.
func TestCloseAtOnce(t *testing.T) {
	r := start(t, accept.Settings{CloseAtOnce: true})
	c := r.connect("aone")
	expect(t, c, "one")
	c.(interface{ CloseWrite() error }).CloseWrite()
	gone(t, c)
	if got := r.causes(1)[0]; got != "closed" {
		t.Error(got)
	}
}

// A connection that is silent for longer, or lives longer, than it may is ended.
func TestTimeLimits(t *testing.T) {
	for want, s := range map[string]accept.Settings{
		"idle timeout":  {IdleTimeout: 50 * time.Millisecond},
		"max age":       {MaxAge: 50 * time.Millisecond},
		"close timeout": {CloseTimeout: 50 * time.Millisecond},
	} {
		t.Run(want, func(t *testing.T) {
			r := start(t, s)
			c := r.connect("aone!") // its target does not end
			expect(t, c, "one!")
			if s.CloseTimeout > 0 {
				c.(interface{ CloseWrite() error }).CloseWrite()
			}
			gone(t, c)
			if got := r.causes(1)[0]; !strings.HasPrefix(got, want+": ") {
				t.Error(got)
			}
		})
	}
}

// A client that is done sending waits for its answer, however long that takes: it is not idle.
func TestGap25DrainSparesThoseThatWaitForAnAnswer(t *testing.T) {
	r := start(t, accept.Settings{DrainIdle: 20 * time.Millisecond})
	asking := r.connect("aquestion!")
	expect(t, asking, "question!")
	asking.(*net.TCPConn).CloseWrite()
	idle := r.connect("bone")
	expect(t, idle, "one")
	r.cancel()
	gone(t, idle) // and the other one was silent for longer
	r.answer()
	if rest, err := io.ReadAll(asking); string(rest) != "answer" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if got := r.causes(2); !slices.Contains(got, "closed") {
		t.Error(got)
	}
}

// What a slow reader has not taken yet is not lost because nothing else moves.
func TestGap25DrainLosesNoBytes(t *testing.T) {
	const size = 1 << 20
	r := start(t, accept.Settings{DrainIdle: 20 * time.Millisecond})
	slow := r.connect("a")
	if _, err := slow.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	idle := r.connect("bone")
	expect(t, idle, "one")
	r.cancel()
	gone(t, idle)
	if n, _ := io.Copy(io.Discard, slow); n != size {
		t.Errorf("%d bytes, want %d", n, size)
	}
}
