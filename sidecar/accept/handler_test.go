package accept_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/pipe"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// handler brings connections up as their first byte says: "h" hangs, any other is the name of the peer, whose bytes then
// come back, but for "d", whose target is down.
type handler struct {
	buffers pipe.Buffers
	poller  *poll.Poller
	echo    string // address of an echo server
}

func (h *handler) Connect(ctx context.Context, a *accept.Attempt) (client, target *pipe.End) {
	name := make([]byte, 1)
	stop := context.AfterFunc(ctx, func() { a.Conn.Close() })
	_, err := io.ReadFull(a.Conn, name)
	if err == nil && name[0] == 'h' {
		io.Copy(io.Discard, a.Conn)
	}
	if !stop() || err != nil || name[0] == 'h' {
		a.Conn.Close()
		a.Record.End(record.HandshakeTimeout, context.Cause(ctx))
		return nil, nil
	}
	a.Record.PeerSubject = string(name)
	if !a.Admit(ctx) {
		a.Conn.Close()
		return nil, nil
	}
	backend, err := h.poller.Dial(ctx, "tcp", h.echo, poll.DialOptions{})
	if err == nil && name[0] == 'd' {
		backend.Close()
		err = errors.New("down")
	}
	if err != nil {
		a.Conn.Close()
		a.Record.End(record.DialFailed, err)
		if ctx.Err() != nil {
			a.Record.End(record.Shutdown, context.Cause(ctx))
		}
		return nil, nil
	}
	in, err := pipe.NewSocket(a.Conn, &h.buffers)
	out, outErr := pipe.NewSocket(backend, &h.buffers)
	if err := errors.Join(err, outErr); err != nil {
		panic(err)
	}
	return pipe.Plain(in), pipe.Plain(out)
}

// echo is the address of a server that sends back what comes, and ends when its client does; one that
// ends with "!" gets an answer, once over is closed.
func echo(t *testing.T, over <-chan struct{}) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				if said, err := io.ReadAll(io.TeeReader(c, c)); err == nil && strings.HasSuffix(string(said), "!") {
					<-over
					io.WriteString(c, "answer")
				}
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
