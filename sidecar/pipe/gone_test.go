package pipe

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// An end that is done sending dies while the other one is silent: it is noticed,
// although there is nothing to read from it and nothing to write to it.
func TestEndGoneAfterHalfClose(t *testing.T) {
	for _, p := range append(pairs, [2]kind{uds, uds}) {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			mustWrite(t, r.near, "goodbye")
			closeWrite(t, r.near)
			got, err := io.ReadAll(r.far)
			check(t, err)
			if p[0] == uds {
				r.near.Close()
			} else {
				raw(r.near).SetLinger(0)
				raw(r.near).Close()
			}
			if res := r.wait(t); string(got) != "goodbye" || res.Cause != Reset || res.Forward != 7 {
				t.Errorf("%q, %+v", got, res)
			}
		})
	}
}

// The far end answers before it has read all, and is gone; the near one reads
// slowly and still sends. It gets the whole answer.
func TestEarlyAnswerToASlowReader(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tcp, tcp}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			r := newRig(t, p[0], p[1])
			answer := answerEarly(t, r)
			got := make([]byte, len(answer))
			if n, err := io.ReadFull(r.near, got); err != nil || !bytes.Equal(got, answer) {
				t.Errorf("%d of %d bytes, %v", n, len(answer), err)
			}
			r.near.Close()
			if res := r.wait(t); res.Cause != Reset || res.Backward != int64(len(answer)) {
				t.Errorf("%+v", res)
			}
		})
	}
}

// A near end that reads nothing cannot hold up the end of the sidecar.
func TestAbortWhileDelivering(t *testing.T) {
	r := newRig(t, tcp, tls13)
	answerEarly(t, r)
	why := errors.New("time is up")
	r.pipe.Abort(why)
	if res := r.wait(t); res.Cause != Aborted || res.Err != why {
		t.Errorf("%+v", res)
	}
}

// queued is how many bytes the other end of c has not acknowledged.
func queued(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	sc, err := c.SyscallConn()
	check(t, err)
	check(t, sc.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }))
	check(t, err)
	return n
}

// answerEarly has the far end answer and go away, and the near one send on until
// that was noticed.
func answerEarly(t *testing.T, r *rig) (answer []byte) {
	t.Helper()
	mustWrite(t, r.near, "x")
	_, err := io.ReadFull(r.far, make([]byte, 1))
	check(t, err)
	answer = bytes.Repeat([]byte("answer"), 100_000)
	_, err = r.far.Write(answer)
	check(t, err)
	for queued(t, raw(r.far)) > 0 { // closing with unread input would throw it away
		runtime.Gosched()
	}
	closeWrite(t, r.far)
	r.far.Close()
	for range 200 {
		mustWrite(t, r.near, "more")
		runtime.Gosched()
	}
	return answer
}
