package pipe

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a TCP or UNIX socket that can be waited on without holding a buffer.
// It is also the net.Conn under a tls.Conn: plain until Join takes it over, and
// from then on Read hands out what has been taken in and says wouldBlock when
// that is used up, while Write gathers records until flush.
type Socket struct {
	net.Conn // what it wraps; its Read and Write block
	raw      syscall.RawConn
	buffers  *Buffers

	joined bool // set before the goroutines of Join start

	// Of the reading goroutine.
	in     *buffer // taken in and not handed out yet
	inErr  error   // what the last system call said; io.EOF after a FIN
	sawEnd bool    // Read has returned inErr
	fillFn func(fd uintptr) bool

	outMu  sync.Mutex
	out    *buffer // gathered, not written yet; guarded by outMu
	outErr error   // guarded by outMu

	closing sync.Once
}

// NewSocket wraps conn, which must be a *net.TCPConn or *net.UnixConn.
func NewSocket(conn net.Conn, buffers *Buffers) (*Socket, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("connection of type %T has no file descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{Conn: conn, raw: raw, buffers: buffers}
	s.fillFn = s.tryFill // once: a method value allocates
	return s, nil
}

// wouldBlock is what Read returns when everything taken in is handed out.
// crypto/tls passes a temporary net.Error through and can be read on after it.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn for the tls.Conn above.
func (s *Socket) Read(b []byte) (int, error) {
	if !s.joined {
		return s.Conn.Read(b)
	}
	if s.in == nil {
		if s.inErr != nil {
			s.sawEnd = true
			return 0, s.inErr
		}
		return 0, wouldBlock{}
	}
	n := copy(b, s.in.data)
	if s.in.data = s.in.data[n:]; len(s.in.data) == 0 {
		s.buffers.give(s.in)
		s.in = nil
	}
	return n, nil
}

// fill waits for input and takes in what is there. It returns nil if there is
// some, io.EOF after a FIN, or the error of the socket.
func (s *Socket) fill() error {
	if s.in != nil || s.inErr != nil {
		return s.inErr
	}
	if err := s.raw.Read(s.fillFn); err != nil {
		s.inErr = err
	}
	if s.in != nil {
		return nil
	}
	return s.inErr
}

// tryFill does the system call. The runtime calls it at once and whenever the
// socket became readable, until it returns true; in between, no buffer is held.
func (s *Socket) tryFill(fd uintptr) bool {
	buf := s.buffers.take()
	for {
		n, err := unix.Read(int(fd), buf.array[:readSize])
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			buf.data = buf.array[:n]
			s.in = buf
			return true
		}
		s.buffers.give(buf)
		if err == unix.EAGAIN {
			return false
		}
		if s.inErr = err; err == nil {
			s.inErr = io.EOF
		}
		return true
	}
}

// takeIn returns what fill took in; the caller gives the buffer back.
func (s *Socket) takeIn() *buffer {
	buf := s.in
	s.in = nil
	return buf
}

// Write implements net.Conn for the tls.Conn above. Both goroutines of a pipe
// come here: the reading one when crypto/tls answers a key update.
func (s *Socket) Write(b []byte) (int, error) {
	if !s.joined {
		return s.Conn.Write(b)
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	written := 0
	for len(b) > 0 && s.outErr == nil {
		if s.out == nil {
			s.out = s.buffers.take()
			s.out.data = s.out.array[:0]
		}
		n := min(len(b), bufferSize-len(s.out.data))
		s.out.data = append(s.out.data, b[:n]...)
		b, written = b[n:], written+n
		if len(s.out.data) == bufferSize {
			s.flushLocked()
		}
	}
	return written, s.outErr
}

// flush writes what has been gathered.
func (s *Socket) flush() error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	s.flushLocked()
	return s.outErr
}

func (s *Socket) flushLocked() {
	if s.out == nil {
		return
	}
	if s.outErr == nil {
		_, s.outErr = s.Conn.Write(s.out.data)
	}
	s.buffers.give(s.out)
	s.out = nil
}

// SetWriteDeadline implements net.Conn. crypto/tls sets one in the past once it
// has sent close_notify, which here has yet to be flushed: it is not wanted.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.joined {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

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

const (
	flushWait   = time.Second // for the send queue to empty before a reset
	refusalWait = time.Second // for the other end to read why it was refused
)

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
