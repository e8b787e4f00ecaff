package workloadattest

import (
	"errors"
	"io"
	"syscall"

	"google.golang.org/grpc/mem"
)

// reader reads from a socket into buffers that it takes once there is something
// to read. A stream waits for hours between two messages, and gRPC would hold a
// buffer for each connection all the while.
type reader struct {
	raw syscall.RawConn
	// try is made once: the runtime's poller would have it escape at each read.
	try func(fd uintptr) (done bool)

	// Of the read that is under way; gRPC has one at a time.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

func newReader(raw syscall.RawConn) *reader {
	r := &reader{raw: raw}
	r.try = r.attempt
	return r
}

// ReadOnReady waits until there is something to read, and reads up to size bytes
// into a buffer of pool, which is the caller's to return there. gRPC looks for
// this method (its internal/transport/readyreader): by itself it does so for the
// net package's own connections alone.
func (r *reader) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	r.size, r.pool = size, pool
	err := r.raw.Read(r.try)
	buf, n := r.buf, r.n
	err = errors.Join(err, r.err)
	r.pool, r.buf, r.n, r.err = nil, nil, 0, nil
	switch {
	case err != nil:
	case n > 0:
		return buf, n, nil
	default:
		err = io.EOF
	}
	if buf != nil {
		pool.Put(buf)
	}
	return nil, 0, err
}

func (r *reader) attempt(fd uintptr) bool {
	r.buf = r.pool.Get(r.size)
	for {
		// Not unix.Read: the race detector tells its reads from package net's writes.
		r.n, r.err = syscall.Read(int(fd), *r.buf)
		if !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if !errors.Is(r.err, syscall.EAGAIN) {
		return true
	}
	r.pool.Put(r.buf)
	r.buf, r.n, r.err = nil, 0, nil
	return false
}
