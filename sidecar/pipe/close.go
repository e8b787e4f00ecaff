package pipe

import (
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	flushWait   = time.Second // for the other end to take a byte before a reset
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

// resetAfterFlush is Reset once the other end has all that was written.
func (s *Socket) resetAfterFlush() {
	s.awaitDelivery()
	s.Reset()
}

// awaitDelivery waits until the other end has all that was written. It gives up
// once flushWait passes without a byte being taken. What a UNIX socket was given
// is delivered already.
func (s *Socket) awaitDelivery() {
	if _, ok := s.Conn.(*net.TCPConn); !ok {
		return
	}
	left := s.queued()
	deadline := time.Now().Add(flushWait)
	for wait := time.Millisecond; left > 0 && time.Now().Before(deadline); wait = min(2*wait, 50*time.Millisecond) {
		time.Sleep(wait) // the kernel has no event for an empty send queue
		if now := s.queued(); now < left {
			left, deadline = now, time.Now().Add(flushWait)
		}
	}
}

// queued is how many bytes the other end has not acknowledged; 0 if it is gone.
func (s *Socket) queued() (n int) {
	// A socket that is closed here has nothing queued either.
	_ = s.raw.Control(func(fd uintptr) {
		if v, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil && !isClosed(fd) {
			n = v
		}
	})
	return n
}

// awaitGone waits until an end that is done sending is gone, which nobody would
// notice until there is something to send to it. The error says how it went; nil
// means that the socket was closed here, or stopAwaiting called.
func (s *Socket) awaitGone() error {
	var gone error
	// The runtime calls this at once and at each event of the socket.
	_ = s.raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
			return false
		}
		gone = syscall.ECONNRESET // of a UNIX socket, and if a write was told already
		if errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			gone = syscall.Errno(errno)
		}
		return true
	})
	return gone
}

// stopAwaiting ends awaitGone, also one that has yet to begin.
func (s *Socket) stopAwaiting() { s.SetReadDeadline(time.Unix(1, 0)) }

// CloseRefused ends a connection whose handshake failed, once the alert is
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
