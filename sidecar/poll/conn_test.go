package poll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func TestReadsWhatComes(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network string) {
		a, b := pair(t, network)
		got := make(chan []byte, 1)
		go func() {
			all, err := io.ReadAll(a)
			if err != nil {
				t.Error(err)
			}
			got <- all
		}()
		want := bytes.Repeat([]byte("bytes"), 1<<20) // more than the kernel holds: the writer has to wait
		_, err := b.Write(want)
		check(t, err)
		check(t, b.CloseWrite())
		if !bytes.Equal(<-got, want) {
			t.Error("other bytes came")
		}
		if _, err := a.Write([]byte("x")); err != nil {
			t.Errorf("after the other's half-close: %v", err)
		}
	})
}

func TestManyReadersGetEachByteOnce(t *testing.T) {
	a, b := pair(t, "tcp")
	var readers sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	for range 8 {
		readers.Go(func() {
			for buf := make([]byte, 3); ; {
				n, err := a.Read(buf)
				if err != nil {
					return
				}
				mu.Lock()
				sum += n
				mu.Unlock()
			}
		})
	}
	for range 1000 {
		_, err := b.Write(make([]byte, 7))
		check(t, err)
	}
	check(t, b.CloseWrite())
	within(t, readers.Wait)
	if sum != 7000 {
		t.Errorf("%d bytes", sum)
	}
}

func TestDeadlines(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network string) {
		a, b := pair(t, network)
		timedOut := func(what string, err error) {
			t.Helper()
			var netErr net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() {
				t.Errorf("%s: %v", what, err)
			}
		}
		one := make([]byte, 1)
		check(t, a.SetDeadline(time.Now().Add(-time.Second)))
		_, err := a.Read(one)
		timedOut("reading after it", err)
		_, err = a.Write(one)
		timedOut("writing after it", err)
		check(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, err = a.Read(one)
		timedOut("reading until it", err)
		much := make([]byte, 64<<20)
		check(t, a.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		n, err := a.Write(much)
		timedOut("writing until it", err)
		if n == 0 || n == 64<<20 {
			t.Errorf("%d bytes written", n)
		}
		check(t, a.SetDeadline(time.Time{}))
		_, err = b.Write(one)
		check(t, err)
		_, err = a.Read(one)
		check(t, err)
	})
}

// A deadline that is set while somebody waits holds for them.
func TestDeadlineEndsAWait(t *testing.T) {
	a, _ := pair(t, "tcp")
	check(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
	failed := make(chan error)
	go func() {
		_, err := a.Read(make([]byte, 1))
		failed <- err
	}()
	waitsIn(t, a)
	check(t, a.SetReadDeadline(time.Unix(1, 0)))
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// waitsIn returns when a goroutine waits for c, or is about to.
func waitsIn(t *testing.T, c *Conn) {
	t.Helper()
	eventually(t, "nobody waits", func() bool {
		if c.readTurn.TryLock() {
			c.readTurn.Unlock()
			return false
		}
		return c.inLoop() != nil
	})
}

func TestCloseWakes(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network string) {
		a, _ := pair(t, network)
		failed := make(chan error, 4)
		for range 2 {
			go func() {
				_, err := a.Read(make([]byte, 1))
				failed <- err
			}()
			go func() {
				_, err := a.Write(make([]byte, 64<<20))
				failed <- err
			}()
		}
		waitsIn(t, a)
		check(t, a.Close())
		within(t, func() {
			for range 4 {
				if err := <-failed; !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
		})
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the second time: %v", err)
		}
		if a.LocalAddr() == nil || a.RemoteAddr() == nil {
			t.Error("no address")
		}
	})
}

func TestReset(t *testing.T) {
	a, b := pair(t, "tcp")
	check(t, a.Reset())
	if _, err := b.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the other end read %v", err)
	}
}

func TestAddresses(t *testing.T) {
	a, b := pair(t, "tcp")
	for _, c := range [][2]net.Addr{{a.LocalAddr(), b.RemoteAddr()}, {b.LocalAddr(), a.RemoteAddr()}} {
		if c[0].String() != c[1].String() || c[0].Network() != "tcp" {
			t.Errorf("%v and %v", c[0], c[1])
		}
	}
	a, b = pair(t, "unix")
	if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().Network() != "unix" {
		t.Errorf("%v, %v, %v", a.LocalAddr(), b.RemoteAddr(), a.RemoteAddr())
	}
}
