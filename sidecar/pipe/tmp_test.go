package pipe

import (
	"io"
	"testing"
	"time"
	"bytes"
)

// near half-closes, far stays silent, near dies
func TestTmpGone(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		if a == uds { t.Skip() }
		r := newRig(t, a, b)
		mustWrite(t, r.near, "x")
		closeWrite(t, r.near)
		_, err := io.ReadAll(r.far)
		check(t, err)
		raw(r.near).SetLinger(0)
		raw(r.near).Close()
		select {
		case res := <-r.result:
			t.Logf("%+v", res)
		case <-time.After(500*time.Millisecond):
			t.Error("never noticed")
		}
	})
}

// early answer then close with unread
func TestTmpEarly(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b)
		go func() {
			for {
				if _, err := r.near.Write(make([]byte, 1000)); err != nil { return }
				time.Sleep(time.Millisecond)
			}
		}()
		_, err := io.ReadFull(r.far, make([]byte, 1))
		check(t, err)
		answer := bytes.Repeat([]byte("answer"), 300_000)
		done := make(chan int)
		go func() {
			n := 0
			buf := make([]byte, 20000)
			for {
				m, err := r.near.Read(buf)
				n += m
				if err != nil { t.Log(err); break }
				time.Sleep(5*time.Millisecond)
			}
			done <- n
		}()
		_, err = r.far.Write(answer)
		t.Log("far write", err)
		r.far.Close()
		if n := <-done; n != len(answer) { t.Errorf("%d of %d", n, len(answer)) }
		t.Logf("%+v", r.wait(t))
	})
}
