package poll

import (
	"math"
	"time"
)

// Timer has a loop run a Task at a time. The zero value is not set. It is of the
// loop that it was first set in.
type Timer struct {
	Task Task
	at   time.Duration // since the Poller's start
	pos  int           // in timers, plus one; 0 if it is not set
}

// Set has the loop run t's task at a time, or a little later, once. It replaces
// what was set before.
func (l *Loop) Set(t *Timer, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timers.remove(t)
	t.at = at.Sub(l.poller.start)
	l.timers.add(t)
	if l.timers[0] == t {
		l.wake()
	}
}

// Unset has the loop forget t. Its task may be about to run nevertheless.
func (l *Loop) Unset(t *Timer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timers.remove(t)
}

// Now is when the loop last woke.
func (l *Loop) Now() time.Time { return l.poller.start.Add(time.Duration(l.clock.Load())) }

// Nanos is Now in nanoseconds since the Poller was made, see Time.
func (l *Loop) Nanos() int64 { return l.clock.Load() }

// Tick is Nanos for a goroutine: what the loop says may be long ago.
func (l *Loop) Tick() int64 {
	now := int64(l.sinceStart())
	l.clock.Store(now)
	return now
}

// Time is the time that is n nanoseconds after the Poller was made.
func (l *Loop) Time(n int64) time.Time { return l.poller.start.Add(time.Duration(n)) }

// timers is a binary heap: none is earlier than the one at half its place.
type timers []*Timer

// wait is how long to wait for the first, in milliseconds, for epoll_wait.
func (h timers) wait(now time.Duration) int {
	if len(h) == 0 {
		return -1
	}
	// Rounded up: it must be due when the wait is over.
	ms := max(h[0].at-now+time.Millisecond-1, 0) / time.Millisecond
	return int(min(ms, math.MaxInt32))
}

// due takes out those whose time has come and appends their tasks to batch.
func (h *timers) due(now time.Duration, batch []Task) []Task {
	for len(*h) > 0 && (*h)[0].at <= now {
		t := (*h)[0]
		h.remove(t)
		batch = append(batch, t.Task)
	}
	return batch
}

func (h *timers) add(t *Timer) {
	*h = append(*h, t)
	h.up(len(*h) - 1)
}

func (h *timers) remove(t *Timer) {
	if t.pos == 0 {
		return
	}
	i, last := t.pos-1, len(*h)-1
	t.pos = 0
	moved := (*h)[last]
	(*h)[last] = nil
	if *h = (*h)[:last]; i == last {
		return
	}
	(*h)[i] = moved
	moved.pos = i + 1
	h.down(i)
	h.up(moved.pos - 1)
}

func (h timers) up(i int) {
	t := h[i]
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= t.at {
			break
		}
		h[i] = h[parent]
		h[i].pos = i + 1
		i = parent
	}
	h[i] = t
	t.pos = i + 1
}

func (h timers) down(i int) {
	t := h[i]
	for {
		child := 2*i + 1
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if child >= len(h) || t.at <= h[child].at {
			break
		}
		h[i] = h[child]
		h[i].pos = i + 1
		i = child
	}
	h[i] = t
	t.pos = i + 1
}
