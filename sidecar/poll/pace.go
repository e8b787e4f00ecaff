package poll

import (
	"runtime/debug"
	"runtime/metrics"
)

const (
	// spare is how much garbage there may be at least, in bytes, before the runtime
	// collects it. By default it does so whenever a small heap has doubled, which is
	// a hundred times a second while connections come and go: a tenth of the work.
	spare = 16 << 20
	// The runtime's setting (GOGC) is between its default and what makes for spare in
	// the smallest heap, 4 MiB.
	leastPercent, mostPercent = 100, 400
)

// pacer has garbage collected less often while there is little on the heap.
type pacer struct {
	percent int // as set; 0 if it is not for us to set
	live    []metrics.Sample
}

func newPacer() *pacer {
	if was := debug.SetGCPercent(mostPercent); was != leastPercent {
		debug.SetGCPercent(was) // it was chosen by the operator
		return &pacer{}
	}
	return &pacer{percent: mostPercent, live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
}

// adjust is called every now and then.
func (p *pacer) adjust() {
	if p.percent == 0 {
		return
	}
	metrics.Read(p.live)
	if want := percentFor(p.live[0].Value.Uint64()); want < p.percent*7/8 || want > p.percent*9/8 {
		debug.SetGCPercent(want)
		p.percent = want
	}
}

// stop leaves it as it was.
func (p *pacer) stop() {
	if p.percent != 0 {
		debug.SetGCPercent(leastPercent)
	}
}

// percentFor is the setting for a heap of which so many bytes are in use.
func percentFor(live uint64) int {
	return int(min(max(spare*100/max(live, 1), leastPercent), mostPercent))
}
