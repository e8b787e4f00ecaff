package pipe

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"io"
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
	const size = 16 << 20
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			sums := make(chan [2][32]byte, 2)
			for _, c := range [][2]net.Conn{{r.near, r.far}, {r.far, r.near}} {
				go func() { sums <- transfer(t, c[0], c[1], size) }()
			}
			for range 2 {
				if s := <-sums; s[0] != s[1] {
					t.Error("the bytes differ")
				}
			}
			if res := r.wait(t); res != (Result{Forward: size, Backward: size}) {
				t.Errorf("%+v", res)
			}
		})
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
// below leaves it usable, wherever in a record it comes. This pins it.
func TestTLSReadsOnAfterWouldBlock(t *testing.T) {
	for _, version := range []kind{tls12, tls13} {
		t.Run(string(version), func(t *testing.T) {
			var slow *trickler
			r := newRigWith(t, version, tcp, func(n *nearEnd) {
				slow = &trickler{Conn: n.conn}
				n.conn = slow
			})
			slow.on.Store(true)
			var want bytes.Buffer
			go func() {
				for i := range 20 {
					r.near.Write(bytes.Repeat([]byte{byte(i)}, i*31))
				}
				r.near.(*tls.Conn).CloseWrite()
			}()
			for i := range 20 {
				want.Write(bytes.Repeat([]byte{byte(i)}, i*31))
			}
			got, err := io.ReadAll(r.far)
			check(t, err)
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%d bytes, want %d", len(got), want.Len())
			}
		})
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
