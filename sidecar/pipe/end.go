package pipe

import (
	"crypto/tls"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// ErrTruncated says that a TLS peer closed its socket without a close_notify
// alert: nobody can know whether all of its bytes arrived (RFC 8446, section
// 6.1).
var ErrTruncated = errors.New("peer closed the connection without close_notify")

// End is one side of a pipe, plaintext or TLS.
type End struct {
	sock *Socket
	tls  *tls.Conn // nil for plaintext

	// What follows is of the pipe, and guarded by its mutex.
	pipe     *Pipe
	handler  poll.Handler // this End
	readable bool         // there may be something to read
	ended    bool         // ... and then an end or error: it has to be read up to that
	writable bool         // there may be room to write
	gone     bool         // both directions of the socket are over
	held     bool         // crypto/tls may hold bytes that it has decrypted
	pending  error        // came along with bytes
}

// Plain is the end that exchanges plaintext over s.
func Plain(s *Socket) *End { return &End{sock: s} }

// TLS is the end that exchanges plaintext over t, which was made over s and has
// completed its handshake.
func TLS(s *Socket, t *tls.Conn) *End { return &End{sock: s, tls: t} }

// next returns bytes that the other end sent; the caller gives the buffer back. It
// returns nil if there are none now. The error is io.EOF where the other end said
// that no more will follow.
func (e *End) next() (*buffer, error) {
	if e.tls != nil {
		return e.nextTLS()
	}
	if err := e.fill(); err != nil {
		return nil, err
	}
	return e.sock.takeIn(), nil
}

// fill has the socket take in what is there, if something is.
func (e *End) fill() error {
	if e.sock.in != nil || !e.readable {
		return nil
	}
	more, err := e.sock.fill()
	// A read that left room found all there was: what comes later is an event.
	e.readable = err == nil && (more || e.ended)
	if err == unix.EAGAIN {
		return nil
	}
	return err
}

func (e *End) nextTLS() (*buffer, error) {
	if e.pending != nil {
		return nil, e.endOfTLS(e.pending)
	}
	// An error comes back through Read, where crypto/tls judges it.
	_ = e.fill()
	if !e.undecrypted() {
		return nil, nil
	}
	size := readLittle
	if e.sock.in != nil {
		size = len(e.sock.in.data)
	}
	buf := e.sock.buffers.take(size)
	n, err := e.readRecords(buf.array)
	if err == error(wouldBlock{}) {
		err = nil
	}
	// Reading may have made crypto/tls answer a key update. An error of writing shows
	// up again where bytes are read or written in earnest.
	if e.sock.out != nil {
		_ = e.sock.flush()
		if err == nil {
			err = e.sock.flooded()
		}
	}
	if e.pending = err; n > 0 {
		buf.data = buf.array[:n]
		return buf, nil
	}
	e.sock.buffers.give(buf)
	if err != nil {
		return nil, e.endOfTLS(err)
	}
	return nil, nil
}

// undecrypted reports whether reading from crypto/tls may yield something.
func (e *End) undecrypted() bool { return e.held || e.sock.in != nil || e.sock.inErr != nil }

// readRecords decrypts all that is taken in, or as much as b holds.
func (e *End) readRecords(b []byte) (n int, err error) {
	for n < len(b) && err == nil && e.undecrypted() {
		var m int
		m, err = e.tls.Read(b[n:])
		// What crypto/tls was given it has used up, unless there was no room.
		n, e.held = n+m, m == len(b)-n
	}
	return n, err
}

// more reports whether next is worth a call.
func (e *End) more() bool {
	return e.readable || e.pending != nil || e.undecrypted()
}

// endOfTLS tells a close_notify from a bare FIN, which crypto/tls lets pass as
// io.EOF between two records.
func (e *End) endOfTLS(err error) error {
	if e.sock.sawEnd && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return ErrTruncated
	}
	return err
}

// write passes buf on, which it takes over. What the kernel does not take at once
// is left in the socket.
func (e *End) write(buf *buffer) error {
	if e.tls == nil {
		return e.sock.send(buf)
	}
	e.sock.expect(len(buf.data))
	_, err := e.tls.Write(buf.data)
	e.sock.buffers.give(buf)
	if flushErr := e.sock.flush(); flushErr != nil {
		return flushErr
	}
	return err
}

// closeWrite says that no more bytes will follow: close_notify over TLS, a FIN
// in plaintext.
func (e *End) closeWrite() error {
	if e.tls == nil {
		return e.sock.CloseWrite()
	}
	err := e.tls.CloseWrite()
	if flushErr := e.sock.flush(); flushErr != nil {
		return flushErr
	}
	return err
}
