package pipe

import (
	"errors"
	"io"
	"testing"
	"time"
)

func TestIdleTimeout(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		t.Parallel()                    // it mostly waits
		idle := 1500 * time.Millisecond // a machine that has other things to do may sleep long
		r := newRigWith(t, a, b, Options{IdleTimeout: idle}, func(*nearEnd) {})
		// Bytes either way keep it going.
		start := time.Now()
		for n := 0; time.Since(start) < idle*3/2; n++ {
			from, to := r.near, r.far
			if n%2 == 1 {
				from, to = to, from
			}
			mustWrite(t, from, "x")
			_, err := io.ReadFull(to, make([]byte, 1))
			check(t, err)
			time.Sleep(idle / 10)
		}
		quiet := time.Now()
		res := r.wait(t)
		if res.Cause != IdleTimeout || res.Err == nil || time.Since(quiet) < idle/2 {
			t.Errorf("%+v after %v", res, time.Since(quiet))
		}
		for _, end := range []io.Reader{r.near, r.far} {
			if _, err := end.Read(make([]byte, 1)); err == nil || err == io.EOF && a != uds && b != uds {
				t.Errorf("an end read %v, want a reset", err)
			}
		}
	})
}

// The close timeout is for what is open one way only.
func TestCloseTimeout(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}, {tcp, tcp}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, p[0], p[1], Options{CloseTimeout: 1500 * time.Millisecond}, func(*nearEnd) {})
			mustWrite(t, r.near, "x")
			time.Sleep(1700 * time.Millisecond)
			closeWrite(t, r.near)
			_, err := io.ReadAll(r.far)
			check(t, err)
			for range 4 {
				mustWrite(t, r.far, "y")
				time.Sleep(400 * time.Millisecond) // together longer than the limit
			}
			if res := r.wait(t); res.Cause != CloseTimeout || res.Forward != 1 || res.Backward != 4 {
				t.Errorf("%+v", res)
			}
		})
	}
}

// The deadline ends it however busy it is; what was read before is delivered.
func TestDeadline(t *testing.T) {
	for _, p := range [][2]kind{{tls13, tcp}, {tcp, tls13}} {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, p[0], p[1], Options{Deadline: time.Now().Add(300 * time.Millisecond)}, func(*nearEnd) {})
			go func() {
				for {
					if _, err := r.near.Write(make([]byte, 10_000)); err != nil {
						return
					}
				}
			}()
			n, err := io.Copy(io.Discard, r.far)
			if err == nil {
				t.Error("the far end saw a clean end")
			}
			if res := r.wait(t); res.Cause != MaxAge || p[1] == tcp && n != res.Forward {
				t.Errorf("%+v, of which %d came", res, n)
			}
		})
	}
}

func TestCountersAndActivity(t *testing.T) {
	var counters Counters
	start := time.Now()
	r := newRigWith(t, tls13, tcp, Options{Counters: &counters}, func(*nearEnd) {})
	other := newRigWith(t, tcp, tcp, Options{Counters: &counters}, func(*nearEnd) {})
	for _, r := range []*rig{r, other} {
		mustWrite(t, r.near, "four")
		_, err := io.ReadFull(r.far, make([]byte, 4))
		check(t, err)
		mustWrite(t, r.far, "nine char")
		_, err = io.ReadFull(r.near, make([]byte, 9))
		check(t, err)
	}
	// They are counted when the kernel has them, so perhaps after they arrived.
	eventually(t, "not counted", func() bool { return counters.Forward.Load() == 8 && counters.Backward.Load() == 18 })
	if at := r.pipe.Active(); at.Before(start.Add(-time.Second)) || at.After(time.Now()) {
		t.Errorf("active at %v, now it is %v", at, time.Now())
	}
	before := r.pipe.Active()
	time.Sleep(10 * time.Millisecond)
	mustWrite(t, r.near, "more")
	_, err := io.ReadFull(r.far, make([]byte, 4))
	check(t, err)
	eventually(t, "not active", func() bool { return r.pipe.Active().After(before) })
	r.pipe.Abort(errors.New("enough"))
	if res := r.wait(t); res.Forward != 8 || res.Backward != 9 || res.Err.Error() != "enough" {
		t.Errorf("%+v", res)
	}
}

// Only what is idle is ended: not what was busy a moment ago, nor one whose end waits
// for its answer, nor one whose bytes a slow reader has yet to take.
func TestEndIdle(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b kind) {
		process := newProcess(t, 0)
		why := errors.New("enough")
		idle, asking, slow := process.rig(t, a, b, Options{}, func(*nearEnd) {}), process.rig(t, a, b, Options{}, func(*nearEnd) {}),
			process.rig(t, a, b, Options{}, func(*nearEnd) {})
		if idle.pipe.EndIdle(time.Hour, why) {
			t.Error("one that was active a moment ago was ended")
		}
		mustWrite(t, asking.near, "question")
		closeWrite(t, asking.near)
		_, err := io.ReadAll(asking.far)
		check(t, err)
		sent := make(chan int, 1)
		const size = 32 << 20 // more than the kernel holds
		go func() {
			n, _ := slow.near.Write(make([]byte, size))
			closeWrite(t, slow.near)
			sent <- n
		}()
		eventually(t, "nothing was sent", func() bool {
			slow.pipe.mu.Lock()
			defer slow.pipe.mu.Unlock()
			return slow.pipe.ways[0].unsent > 0
		})
		if asking.pipe.EndIdle(0, why) || slow.pipe.EndIdle(0, why) {
			t.Error("one that is not idle was ended")
		}
		if n, err := io.Copy(io.Discard, slow.far); n != size || err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		if n := <-sent; n != size {
			t.Errorf("%d bytes sent", n)
		}
		// The last bytes of a handshake may be on their way for 40 ms, until they are acknowledged.
		eventually(t, "the idle one was not ended", func() bool { return idle.pipe.EndIdle(0, why) })
		if idle.pipe.EndIdle(0, why) {
			t.Error("the idle one was ended twice")
		}
		if res := idle.wait(t); res.Cause != Aborted || res.Err != why {
			t.Errorf("%+v", res)
		}
	})
}
