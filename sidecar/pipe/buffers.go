package pipe

import (
	"sync"
	"sync/atomic"
)

const (
	// readSize is the most that is taken from a socket at once, in bytes: sixteen
	// full TLS records.
	readSize = 256 << 10
	// bufferSize also holds what readSize bytes become as TLS records, and what they
	// become when the rest of a record comes with them.
	bufferSize = readSize + 20<<10
)

// Buffers are the buffers that the connections of one process share. A
// connection holds one only while bytes move through it. The zero value is
// ready.
type Buffers struct {
	pool sync.Pool
	held atomic.Int64 // how many are in use
}

// buffer is one of them: data is the part in use.
type buffer struct {
	data  []byte
	array [bufferSize]byte
}

func (b *Buffers) take() *buffer {
	b.held.Add(1)
	if buf, ok := b.pool.Get().(*buffer); ok {
		return buf
	}
	return new(buffer)
}

func (b *Buffers) give(buf *buffer) {
	b.held.Add(-1)
	buf.data = nil
	b.pool.Put(buf)
}
