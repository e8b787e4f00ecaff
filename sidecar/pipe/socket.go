package pipe

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

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

	writeMu sync.Mutex // held while bytes are written, and from gather to flush
	reset   bool       // a write was told of a reset; guarded by writeMu

	outMu  sync.Mutex // held for moments only, after writeMu if that is needed
	out    *buffer    // gathered, not written yet; guarded by outMu
	outErr error      // guarded by outMu

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

func (wouldBlock) Error() string { return "would block" }

func (wouldBlock) Timeout() bool { return true }

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
	if s.inErr == io.EOF && s.wasReset() {
		s.inErr = syscall.ECONNRESET
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

// wasReset tells a reset from a FIN after a read of zero bytes. The kernel reports
// a reset once: if a write came first, a read then looks like a regular end. A
// write after a FIN fails with EPIPE instead, and leaves that end a regular one.
func (s *Socket) wasReset() bool {
	closed := false
	if err := s.raw.Control(func(fd uintptr) {
		closed = isClosed(fd) // never a UNIX socket: its FIN is one
	}); err != nil || !closed {
		return false
	}
	// On a closed socket a write does not last.
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.reset
}

// isClosed reports whether a TCP connection is no more, for both directions.
func isClosed(fd uintptr) bool {
	const tcpClose = 7 // TCP_CLOSE of linux/tcp_states.h
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}

// takeIn returns what fill took in; the caller gives the buffer back.
func (s *Socket) takeIn() *buffer {
	buf := s.in
	s.in = nil
	return buf
}

// dropIn gives back what was taken in and nobody will read.
func (s *Socket) dropIn() {
	if s.in != nil {
		s.buffers.give(s.in)
		s.in = nil
	}
}
