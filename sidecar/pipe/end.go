package pipe

import (
	"crypto/tls"
	"errors"
	"io"
)

// ErrTruncated says that a TLS peer closed its socket without a close_notify
// alert: nobody can know whether all of its bytes arrived (RFC 8446, section
// 6.1).
var ErrTruncated = errors.New("peer closed the connection without close_notify")

// End is one side of a pipe, plaintext or TLS.
type End struct {
	sock *Socket
	tls  *tls.Conn // nil for plaintext
	// pending is an error that came along with bytes; of the reading goroutine.
	pending error
}

// Plain is the end that exchanges plaintext over s.
func Plain(s *Socket) *End { return &End{sock: s} }

// TLS is the end that exchanges plaintext over t, which was made over s and has
// completed its handshake.
func TLS(s *Socket, t *tls.Conn) *End { return &End{sock: s, tls: t} }

// next waits for bytes and returns them; the caller gives the buffer back. The
// error is io.EOF where the other end said that no more will follow.
func (e *End) next() (*buffer, error) {
	if e.tls != nil {
		return e.nextTLS()
	}
	if err := e.sock.fill(); err != nil {
		return nil, err
	}
	return e.sock.takeIn(), nil
}

func (e *End) nextTLS() (*buffer, error) {
	for {
		if e.pending != nil {
			return nil, e.endOfTLS(e.pending)
		}
		buf := e.sock.buffers.take()
		n, err := e.readRecords(buf.array[:readSize])
		if err == error(wouldBlock{}) {
			err = nil
		}
		// Reading may have made crypto/tls answer a key update.
		if flushErr := e.sock.flushNow(); err == nil {
			err = flushErr
		}
		e.pending = err
		if n > 0 {
			buf.data = buf.array[:n]
			return buf, nil
		}
		e.sock.buffers.give(buf)
		if e.pending != nil {
			continue
		}
		// An error of fill comes back through Read, where crypto/tls judges it.
		_ = e.sock.fill()
	}
}

// readRecords decrypts all that is taken in, or as much as b holds.
func (e *End) readRecords(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = e.tls.Read(b[n:])
		n += m
	}
	return n, err
}

// endOfTLS tells a close_notify from a bare FIN, which crypto/tls lets pass as
// io.EOF between two records.
func (e *End) endOfTLS(err error) error {
	if e.sock.sawEnd && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return ErrTruncated
	}
	return err
}

// write passes b on to the kernel. It returns how many bytes of it were taken.
func (e *End) write(b []byte) (int, error) {
	if e.tls == nil {
		return e.sock.writeAll(b)
	}
	e.sock.gather()
	n, err := e.tls.Write(b)
	if flushErr := e.sock.flush(); err == nil && flushErr != nil {
		return 0, flushErr
	}
	return n, err
}

// closeWrite says that no more bytes will follow: close_notify over TLS, a FIN
// in plaintext.
func (e *End) closeWrite() error {
	if e.tls == nil {
		return e.sock.CloseWrite()
	}
	e.sock.gather()
	return errors.Join(e.tls.CloseWrite(), e.sock.flush())
}
