package traffic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Hello is a ClientHello as Go sends it.
func Hello() []byte {
	near, far := net.Pipe()
	hello := make([]byte, 16<<10)
	got := make(chan int)
	go func() {
		n, _ := io.ReadAtLeast(far, hello, 5)
		n2, _ := io.ReadFull(far, hello[n:max(n, 5+int(hello[3])<<8+int(hello[4]))])
		far.Close()
		got <- n + n2
	}()
	_ = tls.Client(near, &tls.Config{InsecureSkipVerify: true}).Handshake() // ends with the pipe
	near.Close()
	return hello[:<-got]
}

// Loris opens n connections and sends half a ClientHello on each, a byte at a time. It returns once all were closed by
// the other side, with how long the last one lasted; the error is ctx's, or that of a dial.
func Loris(ctx context.Context, addr string, n int, every time.Duration) (time.Duration, error) {
	hello := Hello()
	half := hello[:len(hello)/2]
	begun := time.Now()
	err := each(n, func(int) error {
		return hold(ctx, addr, func(c net.Conn, closed <-chan struct{}) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for _, b := range half {
				if _, err := c.Write([]byte{b}); err != nil {
					break
				}
				select {
				case <-tick.C:
				case <-closed:
					return
				}
			}
			<-closed
		})
	})
	return time.Since(begun), err
}

// Flood opens n connections, many at a time, which do anything but a handshake: they say nothing, send garbage, send half a
// ClientHello, speak HTTP, close or reset at once. Those that stay are held until the other side closes them. The
// error is ctx's, or that of a dial.
func Flood(ctx context.Context, addr string, n int) error {
	hello, garbage := Hello(), make([]byte, 4<<10)
	_, _ = script(uint64(n), toBackend).Read(garbage)
	says := [][]byte{nil, garbage, hello[:len(hello)/2], []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil, nil}
	return each(n, func(i int) error {
		switch kind := i % len(says); kind {
		case 4, 5:
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			if kind == 5 {
				reset(c)
				return nil
			}
			return c.Close()
		default:
			return hold(ctx, addr, func(c net.Conn, closed <-chan struct{}) {
				_, _ = c.Write(says[kind]) // the other side may have closed
				<-closed
			})
		}
	})
}

// hold dials and lets use have the connection. It returns when the other side has closed it, or with ctx's error.
func hold(ctx context.Context, addr string, use func(c net.Conn, closed <-chan struct{})) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	cut := context.AfterFunc(ctx, func() { c.Close() })
	defer cut()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, c) // an alert may come
	}()
	use(c, closed)
	<-closed
	return context.Cause(ctx)
}

// each does n things, up to 256 at a time.
func each(n int, do func(i int) error) error {
	errs := make([]error, n)
	turns := make(chan struct{}, 256)
	var all sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			errs[i] = do(i)
			<-turns
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
