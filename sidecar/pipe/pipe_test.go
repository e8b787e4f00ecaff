package pipe

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"
)

type kind string

const (
	tcp   kind = "tcp"
	uds   kind = "unix"
	tls12 kind = "tls1.2"
	tls13 kind = "tls1.3"
)

func TestHalfCloseFromNear(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.near, "question")
		closeWrite(t, r.near)
		got, err := io.ReadAll(r.far)
		check(t, err)
		// The far end answers only now, and at length.
		answer := bytes.Repeat([]byte("answer "), 100_000)
		go func() {
			r.far.Write(answer)
			r.far.(interface{ CloseWrite() error }).CloseWrite()
		}()
		back, err := io.ReadAll(r.near)
		check(t, err)
		if string(got) != "question" || !bytes.Equal(back, answer) {
			t.Errorf("got %q and %d bytes back, want %d", got, len(back), len(answer))
		}
		want := Result{Forward: 8, Backward: int64(len(answer))}
		if res := r.wait(t); res != want {
			t.Errorf("%+v, want %+v", res, want)
		}
	})
}

func TestHalfCloseFromFar(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.far, "greeting")
		closeWrite(t, r.far)
		got, err := io.ReadAll(r.near)
		check(t, err)
		mustWrite(t, r.near, "and more")
		closeWrite(t, r.near)
		back, err := io.ReadAll(r.far)
		check(t, err)
		if string(got) != "greeting" || string(back) != "and more" {
			t.Errorf("got %q and %q", got, back)
		}
		if res := r.wait(t); res != (Result{Forward: 8, Backward: 8}) {
			t.Errorf("%+v", res)
		}
	})
}

func TestBothWaysAtOnceByteExact(t *testing.T) {
	const size = 8 << 20
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls12}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			bothWays(t, r, r.near, size, size)
		})
	}
}

// Conversations of all kinds and lengths, none included: whoever is done first
// half-closes, and the other goes on.
func TestRandomConversations(t *testing.T) {
	sizes := []func() int{func() int { return 0 }, func() int { return mathrand.IntN(40) }, func() int { return mathrand.IntN(100_000) },
		func() int { return mathrand.IntN(1 << 20) }}
	size := func() int { return sizes[mathrand.IntN(len(sizes))]() }
	eachPair(t, func(t *testing.T, a, b kind) {
		for i := range 5 {
			r := newRig(t, a, b)
			if i%2 == 1 {
				r.buffers.heldLarge.Add(plenty) // as if by slow readers
			}
			bothWays(t, r, r.near, size(), size())
		}
	})
}

// bothWays sends that many bytes each way through a pipe, at once, until its end.
func bothWays(t *testing.T, r *rig, near net.Conn, forward, backward int) {
	t.Helper()
	sums := make(chan [2][32]byte, 2)
	go func() { sums <- transfer(t, near, r.far, forward) }()
	go func() { sums <- transfer(t, r.far, near, backward) }()
	for range 2 {
		if s := <-sums; s[0] != s[1] {
			t.Errorf("the bytes differ, of %d and %d", forward, backward)
		}
	}
	if res := r.wait(t); res != (Result{Forward: int64(forward), Backward: int64(backward)}) {
		t.Errorf("%+v, want %d and %d", res, forward, backward)
	}
}

// transfer sends size random bytes in pieces of uneven length and returns the
// hashes of what was sent and received.
func transfer(t *testing.T, from, to net.Conn, size int) (sums [2][32]byte) {
	sent, got := sha256.New(), sha256.New()
	written := make(chan error, 1)
	go func() {
		piece := make([]byte, 200_003)
		rand.Read(piece)
		left := size
		for i := 0; left > 0; i++ {
			n := min(left, 1+(i*7919)%len(piece))
			sent.Write(piece[:n])
			if _, err := from.Write(piece[:n]); err != nil {
				written <- err
				return
			}
			left -= n
		}
		written <- from.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if _, err := io.Copy(got, to); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	return [2][32]byte{[32]byte(sent.Sum(nil)), [32]byte(got.Sum(nil))}
}

// The far end reads nothing: the near one is held back, and nothing is lost when
// it reads on.
func TestBackPressure(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		t.Parallel() // it mostly waits
		r := newRig(t, a, b)
		r.near.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		sent, err := r.near.Write(make([]byte, 256<<20))
		if err == nil {
			t.Fatal("256 MiB went nowhere")
		}
		if a != tcp && a != uds {
			return // a TLS stream is broken by a write that was cut off
		}
		r.near.SetWriteDeadline(time.Time{})
		closeWrite(t, r.near)
		n, err := io.Copy(io.Discard, r.far)
		check(t, err)
		if n != int64(sent) {
			t.Errorf("%d bytes came, %d were sent", n, sent)
		}
	})
}

// crypto/tls does not document that a temporary net.Error of the connection
// below leaves it usable, wherever in a record it comes. This pins it, for session
// tickets too, which a client gets after its handshake.
func TestTLSReadsOnAfterWouldBlock(t *testing.T) {
	for _, version := range []kind{tls12, tls13} {
		for _, serves := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, near serves %v", version, serves), func(t *testing.T) {
				r := newRigWith(t, version, tcp, Options{}, func(n *nearEnd) {
					n.conn, n.serves = trickler{n.conn}, serves
					n.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				})
				var want bytes.Buffer
				for i := range 20 {
					want.Write(bytes.Repeat([]byte{byte(i)}, i*31))
				}
				go func() {
					for b := want.Bytes(); len(b) > 0; {
						n, _ := r.near.Write(b[:min(len(b), 311)])
						b = b[n:]
					}
					r.near.(*tls.Conn).CloseWrite()
				}()
				got, err := io.ReadAll(r.far)
				check(t, err)
				if !bytes.Equal(got, want.Bytes()) {
					t.Errorf("%d bytes, want %d", len(got), want.Len())
				}
			})
		}
	}
}

// An idle connection holds no buffer: all that were taken have been given back.
func TestIdleHoldsNoBuffer(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		for range 3 {
			mustWrite(t, r.near, "ping")
			_, err := io.ReadFull(r.far, make([]byte, 4))
			check(t, err)
			mustWrite(t, r.far, "pong")
			_, err = io.ReadFull(r.near, make([]byte, 4))
			check(t, err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for r.buffers.held.Load() != 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%d buffers held while idle", r.buffers.held.Load())
			}
			runtime.Gosched()
		}
	})
}
