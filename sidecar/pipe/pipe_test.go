package pipe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// rig is a pipe between two far ends: near <-> [a, b] <-> far. The link between
// near and a is a's kind, the one between b and far is b's.
type rig struct {
	near, far net.Conn
	buffers   *Buffers
	result    chan Result
	cancel    context.CancelCauseFunc
}

type kind string

const (
	tcp   kind = "tcp"
	uds   kind = "unix"
	tls12 kind = "tls1.2"
	tls13 kind = "tls1.3"
)

func newRig(t *testing.T, a, b kind) *rig {
	t.Helper()
	return newRigOver(t, a, b, func(c net.Conn) net.Conn { return c })
}

// newRigOver is newRig with the near end's socket wrapped.
func newRigOver(t *testing.T, a, b kind, wrap func(net.Conn) net.Conn) *rig {
	t.Helper()
	buffers := new(Buffers)
	near, aEnd := link(t, a, buffers, wrap)
	far, bEnd := link(t, b, buffers, func(c net.Conn) net.Conn { return c })
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &rig{near: near, far: far, buffers: buffers, result: make(chan Result, 1), cancel: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.result <- Join(ctx, aEnd, bEnd)
	}()
	t.Cleanup(func() {
		cancel(nil)
		near.Close()
		far.Close()
		<-done
	})
	deadline := time.Now().Add(20 * time.Second)
	near.SetDeadline(deadline)
	far.SetDeadline(deadline)
	return r
}

// link connects a far end to an End of a pipe.
func link(t *testing.T, k kind, buffers *Buffers, wrap func(net.Conn) net.Conn) (net.Conn, *End) {
	t.Helper()
	network, address := "tcp", "127.0.0.1:0"
	if k == uds {
		dir, err := os.MkdirTemp("", "ly")
		check(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		network, address = "unix", filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	check(t, err)
	defer l.Close()
	outer, err := net.Dial(network, l.Addr().String())
	check(t, err)
	inner, err := l.Accept()
	check(t, err)
	sock, err := NewSocket(inner, buffers)
	check(t, err)
	if k == tcp || k == uds {
		return outer, Plain(sock)
	}
	clientConfig, serverConfig := configs(t, k)
	client, server := tls.Client(wrap(outer), clientConfig), tls.Server(sock, serverConfig)
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	check(t, server.Handshake())
	check(t, <-shaken)
	return client, TLS(sock, server)
}

func configs(t *testing.T, k kind) (client, server *tls.Config) {
	t.Helper()
	svid := testca.New(t, "one.test").SVID(t, "spiffe://one.test/a")
	version := uint16(tls.VersionTLS13)
	if k == tls12 {
		version = tls.VersionTLS12
	}
	server = &tls.Config{MaxVersion: version, Certificates: []tls.Certificate{{
		Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}}
	return &tls.Config{InsecureSkipVerify: true}, server
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	check(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

func (r *rig) wait(t *testing.T) Result {
	t.Helper()
	select {
	case res := <-r.result:
		return res
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("the pipe did not end\n%s", buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

var pairs = [][2]kind{{tls13, tcp}, {tcp, tls13}, {tls12, tcp}, {tcp, tls12}, {tls13, uds}, {uds, tls13}, {tcp, tcp}}

func eachPair(t *testing.T, f func(t *testing.T, a, b kind)) {
	for _, p := range pairs {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) { f(t, p[0], p[1]) })
	}
}

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

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	check(t, err)
}

func TestBothWaysAtOnceByteExact(t *testing.T) {
	const size = 64 << 20
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

// One end closes everything while the other still sends: what was on its way is
// delivered, and the record calls it a reset, which is no error.
func TestFarClosesWhileNearSends(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.near, "x")
		_, err := io.ReadFull(r.far, make([]byte, 1))
		check(t, err)
		mustWrite(t, r.far, "goodbye")
		r.far.Close()
		got := make([]byte, 7)
		_, err = io.ReadFull(r.near, got)
		check(t, err)
		for err == nil { // until the pipe lets us know
			_, err = r.near.Write(make([]byte, 1<<20))
		}
		if res := r.wait(t); string(got) != "goodbye" || res.Cause != Reset || res.Backward != 7 {
			t.Errorf("%q, %+v", got, res)
		}
	})
}

func TestResetAfterDataDeliversTheData(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			data := bytes.Repeat([]byte("data"), 10_000)
			_, err := r.near.Write(data)
			check(t, err)
			got := make([]byte, len(data))
			_, err = io.ReadFull(r.far, got)
			check(t, err)
			raw(r.near).SetLinger(0)
			raw(r.near).Close()
			if _, err := r.far.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the far end read %v, want a reset", err)
			}
			if res := r.wait(t); !bytes.Equal(got, data) || res.Cause != Reset || res.Forward != int64(len(data)) {
				t.Errorf("%+v", res)
			}
		})
	}
}

// The kernel reports a reset once. If it tells the writing goroutine, the reading
// one must still not take the zero bytes it gets for a regular end.
func TestResetIsNeverACleanEnd(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tcp, tcp}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			for range 50 {
				r := newRig(t, p[0], p[1])
				mustWrite(t, r.far, "x")
				_, err := io.ReadFull(r.near, make([]byte, 1))
				check(t, err)
				flooded := make(chan error, 1)
				go func() {
					for {
						if _, err := r.near.Write(make([]byte, 1000)); err != nil {
							flooded <- err
							return
						}
					}
				}()
				raw(r.far).SetLinger(0)
				raw(r.far).Close()
				// Here too, the kernel tells one of the two.
				_, readErr := r.near.Read(make([]byte, 1))
				writeErr := <-flooded
				if !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
					t.Fatalf("the near end read %v and wrote %v", readErr, writeErr)
				}
				if res := r.wait(t); res.Cause != Reset {
					t.Fatalf("%+v", res)
				}
			}
		})
	}
}

func raw(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return c.(*net.TCPConn)
}

// A TLS peer that is killed leaves a bare FIN. The plaintext end must not take
// what it got for all there was, and must get all of what there was.
func TestTruncatedTLSIsNoCleanEnd(t *testing.T) {
	for _, version := range []kind{tls12, tls13} {
		t.Run(string(version), func(t *testing.T) {
			r := newRig(t, version, tcp)
			data := bytes.Repeat([]byte("data"), 50_000)
			_, err := r.near.Write(data)
			check(t, err)
			raw(r.near).CloseWrite()
			got, err := io.ReadAll(r.far)
			if err == nil {
				t.Error("the far end saw a clean end")
			}
			if res := r.wait(t); !bytes.Equal(got, data) || res.Cause != Truncated || !errors.Is(res.Err, ErrTruncated) {
				t.Errorf("%d of %d bytes, %+v", len(got), len(data), res)
			}
		})
	}
}

func TestGarbageInTLS(t *testing.T) {
	r := newRig(t, tls13, tcp)
	_, err := raw(r.near).Write([]byte{23, 3, 3, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32})
	check(t, err)
	if _, err := r.near.Read(make([]byte, 1)); err == nil || !isAlert(err) {
		t.Errorf("the near end read %v, want an alert", err)
	}
	if res := r.wait(t); res.Cause != Failed || res.Forward != 0 {
		t.Errorf("%+v", res)
	}
}

func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

func TestAbort(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		mustWrite(t, r.near, "x")
		_, err := io.ReadFull(r.far, make([]byte, 1))
		check(t, err)
		why := errors.New("time is up")
		r.cancel(why)
		if res := r.wait(t); res.Cause != Aborted || res.Err != why || res.Forward != 1 {
			t.Errorf("%+v", res)
		}
	})
}

// The far end reads nothing: the near one is held back, and nothing is lost when
// it reads on.
func TestBackPressure(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
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
			r := newRigOver(t, version, tcp, func(c net.Conn) net.Conn {
				slow = &trickler{Conn: c}
				return slow
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

// trickler sends byte by byte once it is on, so that the reader wakes within
// headers and records.
type trickler struct {
	net.Conn
	on atomic.Bool
}

func (c *trickler) Write(b []byte) (int, error) {
	if !c.on.Load() {
		return c.Conn.Write(b)
	}
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		runtime.Gosched()
	}
	return len(b), nil
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
