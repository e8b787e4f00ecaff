package sockets

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// listener is a [net.Listener] on a socket. It accepts *net.UnixConn.
type listener struct {
	socket *socket
	closed chan struct{}
	once   sync.Once
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, changed, err := l.socket.accept(l.closed)
		if conn != nil || err != nil {
			return conn, err
		}
		select {
		case <-changed:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// accept waits for a connection, and returns neither one nor an error where
// something changed, or is to change first.
func (s *socket) accept(closed <-chan struct{}) (net.Conn, <-chan struct{}, error) {
	s.accepting.Lock()
	defer s.accepting.Unlock()
	s.mu.Lock()
	current, changed := s.current, s.changed
	select {
	case <-closed:
		s.mu.Unlock()
		return nil, changed, net.ErrClosed
	default:
	}
	if s.paused {
		s.mu.Unlock()
		return nil, changed, nil
	}
	if len(s.extra) > 0 {
		conn := s.extra[0]
		s.extra = slices.Delete(s.extra, 0, 1)
		s.mu.Unlock()
		s.update(func() {})
		return conn, changed, nil
	}
	s.mu.Unlock()
	conn, err := s.acceptOn(current, changed)
	switch {
	case conn == nil && err == nil:
		return nil, changed, nil
	case err == nil:
		return conn, changed, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, changed, nil
	}
	return nil, changed, err
}

// acceptOn waits for a connection on one socket, until something changes.
func (s *socket) acceptOn(b *bound, changed <-chan struct{}) (*net.UnixConn, error) {
	b.using.Lock()
	defer b.using.Unlock()
	s.mu.Lock()
	if s.changed != changed {
		s.mu.Unlock()
		return nil, nil
	}
	// From here on, whoever changes something wakes this.
	_ = b.SetDeadline(time.Time{})
	s.mu.Unlock()
	return b.AcceptUnix()
}

// Close implements [net.Listener]: it ends Accept, and waits for it to end.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.socket.update(func() {})
		l.socket.accepting.Lock()
		defer l.socket.accepting.Unlock()
	})
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr {
	return &net.UnixAddr{Net: "unix", Name: l.socket.spec.Path}
}
