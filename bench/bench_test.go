package bench

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

func BenchmarkNewConnection(b *testing.B) {
	eachPair(b, func(b *testing.B, p pair) {
		p.measure(b, func() {
			each(b, 4, func() func() error {
				return func() error {
					conn, err := net.Dial("tcp", p.addr)
					if err != nil {
						return err
					}
					defer conn.Close()
					return roundTrip(conn, make([]byte, 64))
				}
			})
		})
	})
}

func BenchmarkRoundTrip(b *testing.B) { onOpenConns(b, 64, 64) }

func BenchmarkBulk(b *testing.B) { onOpenConns(b, 8, 1<<20) }

// onOpenConns sends size bytes to and fro on so many connections at once.
func onOpenConns(b *testing.B, conns, size int) {
	eachPair(b, func(b *testing.B, p pair) {
		p.measure(b, func() {
			each(b, conns, func() func() error {
				conn, err := net.Dial("tcp", p.addr)
				if err != nil {
					return func() error { return err }
				}
				b.Cleanup(func() { conn.Close() })
				block := make([]byte, size)
				return func() error { return roundTrip(conn, block) }
			})
		})
	})
}

// each does b.N operations on so many workers, each of which makes its operation once.
func each(b *testing.B, workers int, worker func() func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			operation := worker()
			for left.Add(-1) >= 0 {
				if err := operation(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// roundTrip writes a block and reads as much back, at the same time so that neither side's buffers must hold it.
func roundTrip(conn net.Conn, block []byte) error {
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(block)
		written <- err
	}()
	_, err := io.CopyN(io.Discard, conn, int64(len(block)))
	if writeErr := <-written; err == nil {
		err = writeErr
	}
	return err
}
