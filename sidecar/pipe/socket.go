package pipe

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// Socket is a TCP or UNIX socket. It is also the net.Conn under a tls.Conn: until a
// pipe takes it over, Read and Write wait, for the handshake; from then on Read
// hands out what has been taken in and says wouldBlock when that is used up, while
// Write gathers records until flush. It is of one goroutine at a time, but for the
// methods that close it.
type Socket struct {
	*poll.Conn
	buffers *Buffers
	piped   bool // a pipe has taken it over

	in      *buffer // taken in and not handed out yet
	bulk    bool    // much came at once
	inErr   error   // what the last read said; io.EOF after a FIN
	sawEnd  bool    // Read has returned inErr
	records records // where Read is

	out    *buffer // gathered, not written yet
	outErr error   // what the last write said
	reset  bool    // a write was told of a reset
}

// NewSocket wraps conn, which must be a *poll.Conn.
func NewSocket(conn net.Conn, buffers *Buffers) (*Socket, error) {
	c, ok := conn.(*poll.Conn)
	if !ok {
		return nil, fmt.Errorf("connection of type %T is in no event loop", conn)
	}
	return &Socket{Conn: c, buffers: buffers}, nil
}

// wouldBlock is what Read returns when everything taken in is handed out.
// crypto/tls passes a temporary net.Error through and can be read on after it.
type wouldBlock struct{}

func (wouldBlock) Error() string { return "would block" }

func (wouldBlock) Timeout() bool { return true }

func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn for the tls.Conn above. It hands out a record's header
// and then the record, never more: crypto/tls keeps its input buffer at the largest
// size that it ever had, which is that of a record then.
func (s *Socket) Read(b []byte) (int, error) {
	for s.in == nil {
		if s.inErr != nil {
			s.sawEnd = true
			return 0, s.inErr
		}
		if s.piped {
			return 0, wouldBlock{}
		}
		if err := s.await(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.in.data[:min(len(s.in.data), s.records.next())])
	s.records.pass(s.in.data[:n])
	if s.in.data = s.in.data[n:]; len(s.in.data) == 0 {
		s.dropIn()
	}
	return n, nil
}

// await waits for input, for a goroutine.
func (s *Socket) await() error {
	for {
		switch _, err := s.fill(); err {
		case nil, io.EOF:
			return nil
		case unix.EAGAIN:
			if err := s.WaitRead(); err != nil {
				return err
			}
		default:
			s.inErr = &net.OpError{Op: "read", Net: s.Network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
			return nil
		}
	}
}

// fill takes in what is there; more says that there may be more. The error is
// EAGAIN if there is nothing, io.EOF after a FIN, or that of the socket.
func (s *Socket) fill() (more bool, err error) {
	if s.in != nil || s.inErr != nil {
		return false, s.inErr
	}
	want := readLittle
	if s.bulk && !s.buffers.scarce() {
		want = readMuch
	}
	buf := s.buffers.take(want)
	n, err := s.TryRead(buf.array[:want])
	if err != nil {
		s.buffers.give(buf)
		if err == io.EOF && s.wasReset() {
			err = syscall.ECONNRESET
		}
		if err != unix.EAGAIN {
			s.inErr = err
		}
		return false, err
	}
	// It is not bulk any more when little came.
	s.bulk = n >= readLittle || s.bulk && n > readLittle/4
	buf.data = buf.array[:n]
	s.in = buf
	return n == want, nil
}

// wasReset tells a reset from a FIN after a read of zero bytes. The kernel reports
// a reset once: if a write came first, a read then looks like a regular end. A
// write after a FIN fails with EPIPE instead, and leaves that end a regular one.
func (s *Socket) wasReset() bool {
	return s.reset && s.isClosed()
}

// isClosed reports whether a TCP connection is no more, for both directions; never
// of a UNIX socket.
func (s *Socket) isClosed() (closed bool) {
	// A socket that is closed here says no.
	_ = s.Control(func(fd uintptr) { closed = isClosed(fd) })
	return closed
}

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

// SetWriteDeadline implements net.Conn. crypto/tls sets one in the past once it
// has sent close_notify, which in a pipe has yet to be flushed: it is not wanted.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.piped {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
