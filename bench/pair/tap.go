package pair

import (
	"io"
	"net"

	"github.com/lanyard-mtls/lanyard/bench/hello"
)

// tap forwards connections and reads the server's hello of each on its way.
type tap struct {
	net.Listener
	target string
	seen   chan hello.Server
}

func newTap(target string) (*tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{Listener: l, target: target, seen: make(chan hello.Server, 1000)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go t.forward(conn)
		}
	}()
	return t, nil
}

func (t *tap) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", t.target)
	if err != nil {
		return // not listening yet
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client) // the other direction tells
		server.Close()
	}()
	if got, err := hello.ReadServer(io.TeeReader(server, client)); err == nil {
		t.seen <- got
	}
	_, _ = io.Copy(client, server)
}
