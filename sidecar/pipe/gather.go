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
	n, err := s.Conn.Write(b)
	if errors.Is(err, syscall.ECONNRESET) {
		s.reset = true
	}
	return n, err
}

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

// flush writes what has been gathered, and waits for the network. It is for the
// writing goroutine.
func (s *Socket) flush() error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	for s.out != nil && s.outErr == nil {
		buf := s.out
		s.out, s.flushing = nil, true
		s.outMu.Unlock()
		_, err := s.writeAll(buf.data)
		s.outMu.Lock()
		s.flushing = false
		s.buffers.give(buf)
		if err != nil {
			s.outErr = err
		}
	}
	return s.outErr
}

// flushNow writes what has been gathered as far as the kernel takes it at once.
// It is for the reading goroutine, which must not wait for the other end to
// read: that one may wait for us to. What is left goes out with the next flush.
func (s *Socket) flushNow() {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.out == nil || s.flushing || s.outErr != nil {
		return
	}
	// An error shows up again where bytes are read or written in earnest.
	_ = s.raw.Write(func(fd uintptr) bool {
		if n, err := unix.Write(int(fd), s.out.data); err == nil {
			s.out.data = s.out.data[n:]
		}
		return true
	})
	if len(s.out.data) == 0 {
		s.buffers.give(s.out)
		s.out = nil
	}
}

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
