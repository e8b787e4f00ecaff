package pipe

import (
	"sync"
	"sync/atomic"
)

const (
	// readMuch is the most that is taken from a socket at once, in bytes, once there
	// was more than readLittle: 32 full TLS records.
	readMuch   = 512 << 10
	readLittle = 64 << 10
	// slack is what a buffer has room for besides: what so many bytes grow by as TLS
	// records, and the rest of a record that came before them.
	slack = 20 << 10
	// plenty is how many large buffers are held before connections are read from
	// in small pieces. More than a few of them are those of slow readers.
	plenty = 64
)

// Buffers are the buffers that the connections of one process share. A
// connection holds one only while bytes move through it. The zero value is
// ready.
type Buffers struct {
	small, large sync.Pool
	held         atomic.Int64 // how many are in use
	heldLarge    atomic.Int64 // ... of the large ones
}

// buffer is one of them: data is the part in use.
type buffer struct {
	data  []byte
	array []byte
}

// take returns a buffer that has room for n bytes, at most readMuch, and slack.
func (b *Buffers) take(n int) *buffer {
	b.held.Add(1)
	pool, size := &b.small, readLittle+slack
	if n > readLittle {
		pool, size = &b.large, readMuch+slack
		b.heldLarge.Add(1)
	}
	if buf, ok := pool.Get().(*buffer); ok {
		return buf
	}
	return &buffer{array: make([]byte, size)}
}

func (b *Buffers) give(buf *buffer) {
	b.held.Add(-1)
	buf.data = nil
	if len(buf.array) > readLittle+slack {
		b.heldLarge.Add(-1)
		b.large.Put(buf)
		return
	}
	b.small.Put(buf)
}

// scarce says that nobody is to take a large buffer for what can wait.
func (b *Buffers) scarce() bool { return b.heldLarge.Load() >= plenty }
