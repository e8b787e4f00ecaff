package pipe

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// Connections that are busy without end, all in one loop, leave the others their
// turn.
func TestBusyOnesLeaveOthersTheirTurn(t *testing.T) {
	process := newProcess(t, 1)
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tcp, tcp}} {
		busy := process.rig(t, p[0], p[1], Options{}, func(*nearEnd) {})
		go func() {
			for b := make([]byte, 1<<20); ; {
				if _, err := busy.near.Write(b); err != nil {
					return
				}
			}
		}()
		go io.Copy(io.Discard, busy.far)
	}
	r := process.rig(t, tls13, tcp, Options{}, func(*nearEnd) {})
	one := make([]byte, 1)
	for range 50 { // within the ends' deadlines
		mustWrite(t, r.near, "x")
		_, err := io.ReadFull(r.far, one)
		check(t, err)
		mustWrite(t, r.far, "y")
		_, err = io.ReadFull(r.near, one)
		check(t, err)
	}
}

// However much an end sends that the other one does not read, the pipe keeps one
// buffer of it each way.
func TestBackPressureKeepsOneBuffer(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tls13, uds}, {tcp, tcp}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			t.Parallel() // it mostly waits
			r := newRig(t, p[0], p[1])
			var ends sync.WaitGroup
			for _, end := range []io.Writer{r.near, r.far} {
				ends.Go(func() {
					for b := make([]byte, 1<<20); ; {
						if _, err := end.Write(b); err != nil {
							return
						}
					}
				})
			}
			eventually(t, "nothing is held back", func() bool {
				r.pipe.mu.Lock()
				defer r.pipe.mu.Unlock()
				return r.pipe.ways[0].dst.sock.out != nil && r.pipe.ways[1].dst.sock.out != nil
			})
			time.Sleep(100 * time.Millisecond) // they go on sending
			r.near.SetWriteDeadline(time.Unix(1, 0))
			r.far.SetWriteDeadline(time.Unix(1, 0))
			ends.Wait()
			r.pipe.mu.Lock()
			defer r.pipe.mu.Unlock()
			// One waits to be written; of TLS, another one may hold what was not decrypted yet.
			if held := r.buffers.held.Load(); held < 1 || held > 4 {
				t.Errorf("%d buffers held", held)
			}
			for _, w := range r.pipe.ways {
				if out := w.dst.sock.out; out != nil && cap(out.data) > readMuch+slack {
					t.Errorf("%d bytes are kept", cap(out.data))
				}
			}
		})
	}
}

// With many slow readers at once, each costs a small buffer from some number on.
func TestManySlowReaders(t *testing.T) {
	process := newProcess(t, 0)
	buffers := process.buffers
	buffers.heldLarge.Add(plenty - 2)
	rigs := make([]*rig, 8)
	for i := range rigs {
		r := process.rig(t, tls13, tcp, Options{}, func(*nearEnd) {})
		go func() {
			for b := make([]byte, 1<<20); ; {
				if _, err := r.near.Write(b); err != nil {
					return
				}
			}
		}()
		rigs[i] = r
	}
	eventually(t, "they are not held back", func() bool {
		return !slices.ContainsFunc(rigs, func(r *rig) bool {
			r.pipe.mu.Lock()
			defer r.pipe.mu.Unlock()
			return r.pipe.ways[0].unsent == 0
		})
	})
	// Those in use at the same moment may be a few more.
	if n := buffers.heldLarge.Load(); n > plenty+4 {
		t.Errorf("%d large buffers are held", n)
	}
}

// Pipes that are aborted while bytes move, while they end, and more than once, all
// end, once.
func TestAbortAtAnyTime(t *testing.T) {
	process := newProcess(t, 0)
	for i := range 60 {
		p := pairs[i%len(pairs)]
		r := process.rig(t, p[0], p[1], Options{}, func(*nearEnd) {})
		var ends sync.WaitGroup
		for _, end := range []io.ReadWriter{r.near, r.far} {
			ends.Go(func() {
				for b := make([]byte, 10_000); ; {
					if _, err := end.Write(b); err != nil {
						return
					}
				}
			})
			ends.Go(func() { io.Copy(io.Discard, end) })
		}
		switch i % 4 {
		case 1:
			if p[0] != uds {
				raw(r.near).SetLinger(0)
			}
			r.near.Close()
		case 2:
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		}
		why := errors.New("enough")
		for range 3 {
			ends.Go(func() { r.pipe.Abort(why) })
		}
		res := r.wait(t)
		ends.Wait()
		if i%4 != 1 && (res.Cause != Aborted || res.Err != why) {
			t.Errorf("%+v", res)
		}
		r.pipe.Abort(why) // after the end
		if n := r.buffers.held.Load(); n != 0 {
			t.Errorf("%d buffers held", n)
		}
	}
}

// An established connection has no goroutine.
func TestNoGoroutine(t *testing.T) {
	process := newProcess(t, 0)
	before := runtime.NumGoroutine()
	for range 5 {
		for _, p := range pairs {
			r := process.rig(t, p[0], p[1], Options{IdleTimeout: time.Hour}, func(*nearEnd) {})
			mustWrite(t, r.near, "x")
			_, err := io.ReadFull(r.far, make([]byte, 1))
			check(t, err)
		}
	}
	eventually(t, "there are goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// BenchmarkIdle tells what the two ends of an idle connection take, without the
// kernel's share: the pipe's, of which one is TLS, and crypto/tls's own.
func BenchmarkIdle(b *testing.B) {
	const n = 1000
	for range b.N {
		process := newProcess(b, 0)
		before := memory()
		rigs := make([]*rig, n)
		for i := range rigs {
			rigs[i] = process.rig(b, tls13, tcp, Options{}, func(*nearEnd) {})
			mustWrite(b, rigs[i].near, "x")
			_, err := io.ReadFull(rigs[i].far, make([]byte, 1))
			check(b, err)
		}
		b.ReportMetric(float64(memory()-before)/n, "B/conn")
		runtime.KeepAlive(rigs)
	}
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
