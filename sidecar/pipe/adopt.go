package pipe

import (
	"net"

	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// adopt is NewSocket for a connection that package net made. It gets an event loop
// of its own, until all who accept and dial do so with package poll.
func adopt(conn net.Conn, buffers *Buffers) (*Socket, error) {
	p, err := poll.New(poll.Config{Loops: 1})
	if err != nil {
		return nil, err
	}
	c, err := p.Adopt(conn)
	if err != nil {
		p.Close()
		return nil, err
	}
	return &Socket{Conn: c, buffers: buffers, lone: p}, nil
}

// Close closes the socket; bytes in the kernel's send queue still go out.
func (s *Socket) Close() error {
	err := s.Conn.Close()
	s.closeLone()
	return err
}

func (s *Socket) closeLone() {
	if s.lone != nil {
		go s.lone.Close() // not here: this may be its loop
	}
}
