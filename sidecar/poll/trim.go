package poll

import (
	"runtime"
	"runtime/debug"
	"time"
)

const (
	trimCheck = time.Second      // how often it is looked at whether memory can be given back
	trimPause = 20 * time.Second // between two times that it is, at least
)

// trim gives memory back to the kernel, as the runtime alone takes many minutes, and
// paces the collection of garbage, until p is closed.
func (p *Poller) trim() {
	var t trimmer
	pace := newPacer()
	defer pace.stop()
	tick := time.NewTicker(trimCheck)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			pace.adjust()
			if t.due(now, p.open.Load(), p.turns()) {
				runtime.GC() // what is in a sync.Pool survives one collection
				debug.FreeOSMemory()
			}
		}
	}
}

func (p *Poller) turns() (n int64) {
	for _, l := range p.loops {
		n += l.turns.Load()
	}
	return n
}

const (
	trimFall = 64  // sockets that have to close before it is worth it
	trimWork = 500 // turns of the loops that leave something to collect
	trimRest = 50  // turns between two looks of loops that have nothing to do
)

// trimmer knows when it is time: when many sockets have closed, or the loops come
// to rest after they had work.
type trimmer struct {
	last    time.Time // when it was time
	peak    int64     // the most sockets since then
	seen    int64     // turns at the last look
	trimmed int64     // turns when it was time
	began   bool      // it was time once: starting leaves something to collect, too
}

// due is called every trimCheck.
func (t *trimmer) due(now time.Time, open, turns int64) bool {
	t.peak = max(t.peak, open)
	rests := turns-t.seen < trimRest
	t.seen = turns
	fell := t.peak-open >= trimFall && open <= t.peak-t.peak/4
	if !fell && !(rests && (turns-t.trimmed >= trimWork || !t.began)) || now.Sub(t.last) < trimPause {
		return false
	}
	t.last, t.peak, t.trimmed, t.began = now, open, turns, true
	return true
}
