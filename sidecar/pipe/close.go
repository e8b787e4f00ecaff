package pipe

import (
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	flushWait   = time.Second // for the send queue to empty before a reset
	refusalWait = time.Second // for the other end to read why it was refused
)

// CloseWrite sends a FIN: no more bytes will follow.
func (s *Socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close closes the socket; bytes in the kernel's send queue still go out.
func (s *Socket) Close() error {
	var err error
	s.closing.Do(func() { err = s.Conn.Close() })
	return err
}

// closeAfterAlert closes a socket that cannot be read from any more, after the
// alert that crypto/tls may have written about it.
func (s *Socket) closeAfterAlert() {
	s.Conn.SetWriteDeadline(time.Now().Add(flushWait))
	s.gather()
	s.flush()
	s.Close()
}

// Reset closes the socket so that the other end sees a reset and does not take
// what it got for all there was. What is in the send queue is lost. A UNIX socket
// knows no reset; there it is a close.
func (s *Socket) Reset() {
	s.closing.Do(func() {
		if tcp, ok := s.Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		s.Conn.Close()
	})
}

// resetAfterFlush is Reset once the other end has all that was written, or
// flushWait is over.
func (s *Socket) resetAfterFlush() {
	if tcp, ok := s.Conn.(*net.TCPConn); ok {
		deadline := time.Now().Add(flushWait)
		for wait := time.Millisecond; queued(tcp) > 0 && time.Now().Before(deadline); wait = min(2*wait, 50*time.Millisecond) {
			time.Sleep(wait) // the kernel has no event for an empty send queue
		}
	}
	s.Reset()
}

// queued is how many bytes the other end has not acknowledged.
func queued(tcp *net.TCPConn) int {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	if err := raw.Control(func(fd uintptr) {
		if v, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = v
		}
	}); err != nil {
		return 0
	}
	return n
}

// CloseRefused ends a connection whose handshake was refused, with the alert
// written: were it closed at once while input is unread, the kernel would send a
// reset that may overtake the alert.
func (s *Socket) CloseRefused() {
	defer s.Close()
	if s.CloseWrite() != nil {
		return
	}
	s.SetReadDeadline(time.Now().Add(refusalWait))
	io.CopyN(io.Discard, s.Conn, 64<<10)
}
