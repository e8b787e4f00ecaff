package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// conn is a TCP or UNIX connection.
type conn interface {
	net.Conn
	CloseWrite() error
}

// side is one side of a conversation: a writer and a reader, which know every byte from the conversation's number.
// Its fields but conn are written by one goroutine each, and read after done is closed.
type side struct {
	conn conn
	done chan struct{} // closed when both have ended

	sent    int64
	written error // why writing ended early; nil: it said goodbye
	got     int64
	read    error // why reading ended; nil: the other side's goodbye came
	wrong   error // a byte that was not the right one
	ended   time.Time
}

// The two ways of a conversation.
const (
	toBackend = iota
	toClient
)

// script is what one way of a conversation says.
func script(id uint64, way byte) *rand.ChaCha8 {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], id)
	seed[8] = way
	return rand.NewChaCha8(seed)
}

// run writes and reads until both have ended, and closes the connection. It reads in a goroutine of its own.
func (s *side) run(id uint64, writes, reads byte, every time.Duration, stop <-chan struct{}) {
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.readAll(script(id, reads))
	}()
	s.writeAll(script(id, writes), every, stop, received)
	<-received
	s.conn.Close()
	s.ended = time.Now()
	close(s.done)
}

// writeAll writes a piece every now and then, says goodbye when told to stop, and gives up when reading has failed.
func (s *side) writeAll(script *rand.ChaCha8, every time.Duration, stop, received <-chan struct{}) {
	buf := make([]byte, 4096)
	dice := rand.New(rand.NewPCG(script.Uint64(), 0)) // the script begins after its first number
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-stop:
			s.written = s.conn.CloseWrite()
			return
		case <-received:
			if s.read != nil || s.wrong != nil {
				s.written = errors.New("reading had failed")
				return
			}
			received = nil // the other side said goodbye; this one may go on
			continue
		}
		for left := pieceLen(dice); left > 0; {
			piece := buf[:min(left, len(buf))]
			_, _ = script.Read(piece) // never fails
			n, err := s.conn.Write(piece)
			s.sent += int64(n)
			if left -= n; err != nil {
				s.written = err
				return
			}
		}
		timer.Reset(time.Duration(dice.Int64N(2 * int64(every))))
	}
}

// pieceLen is mostly small, and sometimes more than a TLS record or a pipe's buffer.
func pieceLen(dice *rand.Rand) int {
	switch n := dice.IntN(100); {
	case n < 90:
		return 1 + dice.IntN(512)
	case n < 99:
		return 1 + dice.IntN(8<<10)
	default:
		return 1 + dice.IntN(128<<10)
	}
}

// readAll compares what comes with what must come.
func (s *side) readAll(script *rand.ChaCha8) {
	script.Uint64() // as the writer does
	buf, want := make([]byte, 4096), make([]byte, 4096)
	for {
		n, err := s.conn.Read(buf)
		_, _ = script.Read(want[:n])
		for i := range n {
			if buf[i] != want[i] {
				s.wrong = fmt.Errorf("byte %d is %#x, not %#x", s.got+int64(i), buf[i], want[i])
				s.conn.Close() // nothing after it means anything
				return
			}
		}
		s.got += int64(n)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.read = err
			return
		}
	}
}
