package accept_test

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
)

// exhausted is a listener of a process that has no file left every other time.
type exhausted struct {
	net.Listener
	calls atomic.Int32
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.calls.Add(1)%2 == 1 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// Without files to spare the loop goes on, and does not fill the log.
func TestFailuresToAcceptPass(t *testing.T) {
	r := startWith(t, accept.Settings{}, func(l net.Listener) net.Listener { return &exhausted{Listener: l} })
	const n = 20
	for range n {
		c := r.connect("ax")
		expect(t, c, "x")
		c.Close()
	}
	r.causes(n)
	if told := r.troubles.Load(); told != 1 {
		t.Errorf("%d lines about it, want 1 within five seconds", told)
	}
	if failed := r.counted("accept_errors_total"); failed < n {
		t.Errorf("%d failures are counted, want %d", failed, n)
	}
}

// A listener that is closed by somebody else ends the loop, which says so before it waits for its connections.
func TestAListenerThatIsGone(t *testing.T) {
	var listener net.Listener
	r := startWith(t, accept.Settings{}, func(l net.Listener) net.Listener { listener = l; return l })
	c := r.connect("ax")
	expect(t, c, "x")
	listener.Close()
	await(t, "told", func() bool { return r.troubles.Load() == 1 })
	c.Close()
	if err := r.wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	r.causes(1)
}
