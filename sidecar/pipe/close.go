package pipe

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

const (
	flushWait   = time.Second // for the other end to take a byte before a reset
	refusalWait = time.Second // for the other end to read why it was refused
)

// closeAfterAlert closes a socket that cannot be read from any more, after the
// alert that crypto/tls may have written about it.
func (s *Socket) closeAfterAlert() {
	if s.out != nil && s.outErr == nil {
		s.Conn.SetWriteDeadline(time.Now().Add(flushWait))
		s.Conn.Write(s.out.data)
	}
	s.Close()
}

// Reset closes the socket so that the other end sees a reset and does not take
// what it got for all there was. What is in the send queue is lost. A UNIX socket
// knows no reset; there it is a close.
func (s *Socket) Reset() {
	// It was closed already, or is now.
	_ = s.Conn.Reset()
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
	if s.Network() != "tcp" {
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
	_ = s.Control(func(fd uintptr) {
		if v, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil && !isClosed(fd) {
			n = v
		}
	})
	return n
}

// CloseRefused ends a connection whose handshake failed, once the alert is
// written: were it closed at once while input is unread, the kernel would send a
// reset that may overtake the alert.
func (s *Socket) CloseRefused() {
	defer s.dropIn()
	defer s.Close()
	if s.CloseWrite() != nil {
		return
	}
	s.SetReadDeadline(time.Now().Add(refusalWait))
	io.CopyN(io.Discard, s.Conn, 64<<10)
}
