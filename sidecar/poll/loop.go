package poll

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is one event loop: a goroutine that waits for its sockets.
type Loop struct {
	poller       *Poller
	epfd, wakefd int

	mu     sync.Mutex // held for moments only, and last
	slots  []slot     // by the place that events name; guarded by mu
	free   []int32    // places in slots; guarded by mu
	tasks  []Task     // to be run; guarded by mu
	timers timers     // guarded by mu
	asleep bool       // it waits, or is about to, and has to be woken; guarded by mu
	ended  bool       // guarded by mu

	// Of the loop's goroutine.
	events [128]unix.EpollEvent
	fired  []fired
	batch  []Task

	clock atomic.Int64 // when it last woke, in nanoseconds since poller.start
	turns atomic.Int64 // how often it did
	woken atomic.Bool  // there are goroutines that the loop woke or started
}

// slot is a place for a socket.
type slot struct {
	sock       *sock // nil if it is free
	generation int32 // goes up when it is freed
}

// fired is a socket that something happened to.
type fired struct {
	sock   *sock
	events Events
}

// Task is something for a loop to do.
type Task interface{ Run() }

// wakeSlot is the place that the loop's own eventfd goes by.
const wakeSlot = -1

func newLoop(p *Poller) (*Loop, error) {
	l := &Loop{poller: p}
	var err error
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, l.wakefd, &ev); err != nil {
		l.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

func (l *Loop) close() error {
	unix.Close(l.wakefd)
	return os.NewSyscallError("close", unix.Close(l.epfd))
}

// run is the loop's goroutine. A panic in a Handler or Task ends the process: what
// state the others are in, nobody knows.
func (l *Loop) run() {
	var yielded time.Duration
	for {
		timeout, ok := l.rest()
		if !ok {
			return
		}
		n := l.wait(timeout)
		now := l.sinceStart()
		l.clock.Store(int64(now))
		l.turns.Add(1)
		l.collect(n)
		for i, f := range l.fired {
			if f.sock.fire(f.events) {
				l.woken.Store(true)
			}
			l.fired[i] = fired{}
		}
		for i, t := range l.batch {
			t.Run()
			l.batch[i] = nil
		}
		if l.woken.Load() || now-yielded > yieldAfter {
			l.woken.Store(false)
			runtime.Gosched()
			yielded = now
		}
	}
}

// yieldAfter is how long a loop goes on without a word to the runtime's scheduler.
// From a goroutine that did not come by for 10 ms, sysmon takes the processor away
// whenever it finds it in a system call, and starts a thread to run others. Goroutines
// that the loop woke are queued behind it, where perhaps nobody looks while it is in
// the kernel.
const yieldAfter = 4 * time.Millisecond

// wait waits for events and returns how many there are.
func (l *Loop) wait(timeout int) int {
	n, err := unix.EpollWait(l.epfd, l.events[:], timeout)
	if err != nil && err != unix.EINTR {
		panic(fmt.Sprintf("waiting for sockets: %v", err))
	}
	return max(n, 0)
}

// Go starts f on a goroutine of its own. A Handler or Task uses it in place of the
// go statement, after which f might wait for as long as the loop does.
func (l *Loop) Go(f func()) {
	go f()
	l.woken.Store(true)
}

// rest says how long to wait, in milliseconds, for epoll_wait; not ok if the loop
// is to end.
func (l *Loop) rest() (timeout int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return 0, false
	case len(l.tasks) > 0:
		return 0, true
	}
	timeout = l.timers.wait(l.sinceStart())
	l.asleep = timeout != 0
	return timeout, true
}

func (l *Loop) sinceStart() time.Duration { return time.Since(l.poller.start) }

// tasksPerTurn is how many tasks run before the loop looks for events again: they
// are connections with so much to move that they made way for the others.
const tasksPerTurn = 2

// collect finds out what n events are about, and which tasks are to be run.
func (l *Loop) collect(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = false
	l.fired = l.fired[:0]
	for _, ev := range l.events[:n] {
		if ev.Fd == wakeSlot {
			continue
		}
		if s := l.slots[ev.Fd]; s.sock != nil && s.generation == ev.Pad {
			l.fired = append(l.fired, fired{s.sock, Events(ev.Events)})
		}
	}
	due := min(len(l.tasks), tasksPerTurn)
	l.batch = append(l.batch[:0], l.tasks[:due]...)
	left := copy(l.tasks, l.tasks[due:])
	clear(l.tasks[left:])
	l.tasks = l.tasks[:left]
	l.batch = l.timers.due(time.Duration(l.clock.Load()), l.batch)
}

// Do has the loop run t soon, after what happened meanwhile. It may be called from
// anywhere.
func (l *Loop) Do(t Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, t)
	l.wake()
}

// wake makes the loop look at what changed; mu is held.
func (l *Loop) wake() {
	if !l.asleep {
		return
	}
	l.asleep = false
	one := [8]byte{1}
	// Nobody reads the counter: it would take centuries to be full.
	if _, err := unix.Write(l.wakefd, one[:]); err != nil {
		panic(fmt.Sprintf("waking an event loop: %v", err))
	}
}

func (l *Loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
}

// left are the sockets in the loop.
func (l *Loop) left() (all []*sock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.slots {
		if s.sock != nil {
			all = append(all, s.sock)
		}
	}
	return all
}

// reserve finds a place for s.
func (l *Loop) reserve(s *sock) (place, generation int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		place = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		place = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[place].sock = s
	return place, l.slots[place].generation
}

// release frees a place. Events that are on their way to it come to nothing.
func (l *Loop) release(place int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots[place].sock = nil
	l.slots[place].generation++
	l.free = append(l.free, place)
}
