package pipe

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Write implements net.Conn for the tls.Conn above. In a pipe it gathers, also
// when crypto/tls answers a key update from within its Read.
func (s *Socket) Write(b []byte) (int, error) {
	if !s.piped {
		return s.Conn.Write(b)
	}
	if s.outErr != nil {
		return 0, s.outErr
	}
	if s.out == nil {
		s.expect(0)
	}
	s.out.data = append(s.out.data, b...)
	return len(b), nil
}

// expect makes room to gather what n bytes become as records. Nothing may be waiting
// to be written.
func (s *Socket) expect(n int) {
	s.out = s.buffers.take(n)
	s.out.data = s.out.array[:0]
}

// send writes buf, which it takes over: what the kernel does not take at once is
// what flush goes on with. Nothing may be waiting for that.
func (s *Socket) send(buf *buffer) error {
	if s.outErr != nil {
		s.buffers.give(buf)
		return s.outErr
	}
	s.out = buf
	return s.flush()
}

// flush writes what has been gathered, as far as the kernel takes it. What is left
// then stays in out. The error is that of the socket, which is of no use any more
// for writing.
func (s *Socket) flush() error {
	if s.out == nil || s.outErr != nil {
		return s.outErr
	}
	if len(s.out.data) == 0 {
		s.dropOut()
		return nil
	}
	n, err := s.TryWrite(s.out.data)
	s.out.data = s.out.data[n:]
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil {
		s.outErr = err
		s.reset = s.reset || errors.Is(err, syscall.ECONNRESET)
	}
	s.dropOut()
	return err
}

// maxLeft is the most that may wait to be written, in bytes: what one End.write
// makes, and more than a thousand key updates.
const maxLeft = readMuch + slack + 32<<10

// errFlooded ends a connection that would have us keep key updates without limit.
var errFlooded = errors.New("peer asks for key updates and does not read the answers")

// flooded is errFlooded if too much waits to be written.
func (s *Socket) flooded() error {
	if s.out != nil && len(s.out.data) > maxLeft {
		return errFlooded
	}
	return nil
}

// dropOut gives back what was gathered and was or can no longer be written.
func (s *Socket) dropOut() {
	if s.out != nil {
		s.buffers.give(s.out)
		s.out = nil
	}
}
