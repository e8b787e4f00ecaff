package pipe

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writeAll is one blocking write to the kernel.
func (s *Socket) writeAll(b []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.writeLocked(b)
}

func (s *Socket) writeLocked(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.wrote(err)
	return n, err
}

// wrote notes what a write was told; writeMu is held.
func (s *Socket) wrote(err error) { s.reset = s.reset || errors.Is(err, syscall.ECONNRESET) }

// gather begins what the next flush writes. It is for the writing goroutine.
func (s *Socket) gather() { s.writeMu.Lock() }

// Write implements net.Conn for the tls.Conn above. Both goroutines of a pipe
// come here, the reading one when crypto/tls answers a key update; so it never
// waits for the network. What one call of End.write makes fits into a buffer.
func (s *Socket) Write(b []byte) (int, error) {
	if !s.joined {
		return s.Conn.Write(b)
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.outErr != nil {
		return 0, s.outErr
	}
	if s.out == nil {
		s.out = s.buffers.take()
		s.out.data = s.out.array[:0]
	}
	s.out.data = append(s.out.data, b...)
	return len(b), nil
}

// flush writes what has been gathered since gather, by either goroutine, and
// waits for the network.
func (s *Socket) flush() error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	// While outMu is held: a flushNow that finds writeMu locked relies on this loop.
	defer s.writeMu.Unlock()
	for s.out != nil && s.outErr == nil {
		buf := s.out
		s.out = nil
		s.outMu.Unlock()
		_, err := s.writeLocked(buf.data)
		s.outMu.Lock()
		s.buffers.give(buf)
		if err != nil {
			s.outErr = err
		}
	}
	return s.outErr
}

// flushNow writes what has been gathered as far as the kernel takes it at once,
// unless a flush is to come anyway. It is for the reading goroutine, which must
// not wait for the other end to read: that one may wait for us to. What is left
// goes out with the next flush; it returns errFlooded if that is too much.
func (s *Socket) flushNow() error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.out == nil || s.outErr != nil {
		return nil
	}
	if s.writeMu.TryLock() {
		defer s.writeMu.Unlock()
		// An error shows up again where bytes are read or written in earnest.
		_ = s.raw.Write(func(fd uintptr) bool {
			n, err := unix.Write(int(fd), s.out.data)
			s.wrote(err)
			s.out.data = s.out.data[max(n, 0):]
			return true
		})
	}
	switch left := len(s.out.data); {
	case left == 0:
		s.buffers.give(s.out)
		s.out = nil
	case left > maxLeft:
		return errFlooded
	}
	return nil
}

// maxLeft is the most that may wait for a flush, in bytes: what one End.write
// makes, and more than a thousand key updates.
const maxLeft = bufferSize + 32<<10

// errFlooded ends a connection that would have us keep key updates without limit.
var errFlooded = errors.New("peer asks for key updates and does not read the answers")

// dropOut gives back what was gathered and can no longer be written.
func (s *Socket) dropOut() {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.out != nil {
		s.buffers.give(s.out)
		s.out = nil
	}
}

// SetWriteDeadline implements net.Conn. crypto/tls sets one in the past once it
// has sent close_notify, which here has yet to be flushed: it is not wanted.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.joined {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
