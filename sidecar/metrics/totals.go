package metrics

import (
	"runtime"
	"sync/atomic"
)

// totals are what ghostunnel counts: over all tunnels, without labels.
type totals struct {
	accepted, succeeded, errors, handshakeTimeouts atomic.Int64
	open, timeouts                                 atomic.Int64
	handshake, lifetime                            sample
}

// counter, timer and gauge are what ghostunnel's names stand for.
type counter struct {
	name  string
	value int64
}

type timer struct {
	name string
	snapshot
}

type gauge struct {
	name  string
	value any // uint64 or float64
}

func (t *totals) counters() []counter {
	return []counter{
		{"accept.total", t.accepted.Load()},
		{"accept.success", t.succeeded.Load()},
		{"accept.error", t.errors.Load()},
		{"accept.timeout", t.handshakeTimeouts.Load()},
		{"conn.open", t.open.Load()},
		{"conn.timeout", t.timeouts.Load()},
	}
}

func (t *totals) timers() []timer {
	return []timer{{"conn.handshake", t.handshake.snapshot()}, {"conn.lifetime", t.lifetime.snapshot()}}
}

// process is how the Go runtime does. Reading it stops the world for some
// microseconds.
func process() ([]gauge, timer) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	pauses := snapshot{total: int64(m.NumGC)}
	for _, ns := range m.PauseNs[:min(int(m.NumGC), len(m.PauseNs))] {
		pauses.values = append(pauses.values, int64(ns))
	}
	return []gauge{
		{"runtime.goroutines", uint64(runtime.NumGoroutine())},
		{"runtime.cgo-calls", uint64(runtime.NumCgoCall())},
		{"runtime.mem.alloc", m.Alloc},
		{"runtime.mem.total-alloc", m.TotalAlloc},
		{"runtime.mem.sys", m.Sys},
		{"runtime.mem.lookups", m.Lookups},
		{"runtime.mem.mallocs", m.Mallocs},
		{"runtime.mem.frees", m.Frees},
		{"runtime.mem.heap.alloc", m.HeapAlloc},
		{"runtime.mem.heap.sys", m.HeapSys},
		{"runtime.mem.heap.idle", m.HeapIdle},
		{"runtime.mem.heap.inuse", m.HeapInuse},
		{"runtime.mem.heap.released", m.HeapReleased},
		{"runtime.mem.heap.objects", m.HeapObjects},
		{"runtime.mem.stack.inuse", m.StackInuse},
		{"runtime.mem.stack.sys", m.StackSys},
		{"runtime.mem.gc.num-gc", uint64(m.NumGC)},
		{"runtime.mem.gc.cpu-fraction", m.GCCPUFraction},
	}, timer{"runtime.mem.gc.duration", pauses.sorted()}
}
