package poll

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heard is a Handler that passes on what it is told.
type heard chan Events

func (h heard) Ready(ev Events) { h <- ev }

func newHeard() (heard, *Handler) {
	h := make(heard, 100)
	var handler Handler = h
	return h, &handler
}

// until returns when h has been told of ev.
func (h heard) until(t *testing.T, ev Events) {
	t.Helper()
	for after := time.After(limit); ; {
		select {
		case got := <-h:
			if got&ev == ev {
				return
			}
		case <-after:
			t.Fatalf("never told of %x", ev)
		}
	}
}

func TestHandler(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network string) {
		a, b := pair(t, network)
		h, handler := newHeard()
		loop, err := Watch(a, b)
		check(t, err)
		if a.inLoop() != loop || b.inLoop() != loop {
			t.Error("two loops")
		}
		a.Attach(handler)
		_, err = b.Write([]byte("x"))
		check(t, err)
		h.until(t, unix.EPOLLIN)
		if n, err := a.TryRead(make([]byte, 9)); n != 1 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if _, err := a.TryRead(make([]byte, 9)); err != unix.EAGAIN {
			t.Error(err)
		}
		left := make([]byte, 64<<20)
		n, err := a.TryWrite(left)
		if n == 0 || err != unix.EAGAIN {
			t.Fatalf("wrote %d, %v", n, err)
		}
		go io.Copy(io.Discard, b)
		h.until(t, Writable)
		check(t, b.Reset())
		h.until(t, unix.EPOLLHUP)
		a.Detach()
		check(t, a.Close())
		if _, err := a.TryRead(left); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := a.TryWrite(left); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := Watch(a, b); err != net.ErrClosed {
			t.Error(err)
		}
	})
}

// Two sockets that are in loops already come together; one that is to be read from
// is told of at once.
func TestWatchMoves(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	a, b := connect(t, p, l)
	c, d := connect(t, p, l)
	first, err := Watch(a, b)
	check(t, err)
	other, err := Watch(d, c)
	check(t, err)
	if first == other {
		t.Fatal("one loop has all of them")
	}
	_, err = d.Write([]byte("x"))
	check(t, err)
	h, handler := newHeard()
	c.Attach(handler)
	loop, err := Watch(a, c)
	check(t, err)
	if loop != first || c.inLoop() != first {
		t.Error("it did not move")
	}
	h.until(t, unix.EPOLLIN)
}

// An event that is on its way to a socket which is closed meanwhile comes to
// nothing, also if another one has its place and its descriptor.
func TestStaleEventsAreForgotten(t *testing.T) {
	p := newPoller(t)
	l := listen(t, p, "tcp")
	a, b := connect(t, p, l)
	loop, err := Watch(a, b)
	check(t, err)
	stale := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLHUP, Fd: a.place, Pad: a.key}
	fd := a.fd
	check(t, a.Close())
	loop.prefers(t, p)
	c, d := connect(t, p, l)
	if _, err := Watch(c, d); err != nil {
		t.Fatal(err)
	}
	if c.fd != fd && d.fd != fd || c.place != stale.Fd && d.place != stale.Fd {
		t.Fatalf("nothing is used again: descriptor %d, place %d", fd, stale.Fd)
	}
	idle := &Loop{poller: p, slots: loop.slots} // to be told by hand
	idle.events[0] = stale
	idle.collect(1)
	if len(idle.fired) != 0 {
		t.Errorf("%v", idle.fired)
	}
}

// prefers has the next socket come into l.
func (l *Loop) prefers(t *testing.T, p *Poller) {
	t.Helper()
	for range p.loops {
		if p.loops[(p.next.Load()+1)%uint32(len(p.loops))] == l {
			return
		}
		p.next.Add(1)
	}
}

type task func()

func (f task) Run() { f() }

func TestTasksRunInOrder(t *testing.T) {
	l := newPoller(t).loops[0]
	done := make(chan int, 100)
	for i := range 100 {
		l.Do(task(func() { done <- i }))
	}
	within(t, func() {
		for i := range 100 {
			if got := <-done; got != i {
				t.Errorf("%d came, want %d", got, i)
			}
		}
	})
}

func TestTimersGoOffInOrder(t *testing.T) {
	l := newPoller(t).loops[0]
	start := time.Now()
	fired := make(chan time.Duration, 200)
	timers := make([]Timer, 200)
	for i := range timers {
		at := time.Duration(rand.IntN(50)) * time.Millisecond
		timers[i].Task = task(func() { fired <- at })
		l.Set(&timers[i], start.Add(time.Hour))
		if i < 100 {
			l.Set(&timers[i], start.Add(at))
		} else {
			l.Unset(&timers[i])
			l.Unset(&timers[i])
		}
	}
	within(t, func() {
		for range 100 {
			if at := <-fired; time.Since(start) < at {
				t.Errorf("that of %v went off after %v", at, time.Since(start))
			}
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timers.wait(0) != -1 {
		t.Errorf("%d are left", len(l.timers))
	}
}

func TestTimerHeap(t *testing.T) {
	for range 200 {
		var h timers
		all := make([]Timer, 60)
		for i := range all {
			all[i].at = time.Duration(rand.IntN(40))
			h.add(&all[i])
		}
		for range 20 {
			h.remove(&all[rand.IntN(len(all))])
		}
		var last time.Duration
		for len(h) > 0 {
			first := h[0]
			if first.at < last || first.pos != 1 {
				t.Fatalf("%v after %v", first.at, last)
			}
			last = first.at
			h.remove(first)
		}
	}
}
