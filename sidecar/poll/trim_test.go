package poll

import (
	"runtime/debug"
	"testing"
	"time"
)

func TestTrimmer(t *testing.T) {
	var tr trimmer
	now := time.Unix(0, 0)
	look := func(open, turns int64) bool {
		now = now.Add(trimCheck)
		return tr.due(now, open, turns)
	}
	const pause = int(trimPause / trimCheck)
	for i, step := range []struct {
		open, turns int64
		times       int // how often it is looked at
		want        int // at which of them it is time, from one; 0 for never
	}{
		{10, 100, 2 * pause, 2}, // started: it rests from the second look on
		{1000, 50_000, 1, 0},    // busy
		{1000, 90_000, 1, 0},
		{1000, 90_010, 2 * pause, 1},   // rests
		{970, 90_040, 2 * pause, 0},    // a few went
		{500, 91_000, 1, 1},            // half of them
		{10, 91_900, 2 * pause, pause}, // not too soon after the last time
		{10, 91_910, 2 * pause, 0},
	} {
		got := 0
		for n := range step.times {
			if look(step.open, step.turns) && got == 0 {
				got = n + 1
			}
		}
		if got != step.want {
			t.Errorf("step %d: at look %d, want %d", i, got, step.want)
		}
	}
}

func TestPace(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 4 << 20: 400, 5 << 20: 320, 16 << 20: 100, 1 << 30: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d%% for %d bytes, want %d", got, live, want)
		}
	}
	was := debug.SetGCPercent(150) // the operator's
	p := newPacer()
	p.adjust()
	p.stop()
	if got := debug.SetGCPercent(100); got != 150 {
		t.Errorf("%d%%, want what the operator chose", got)
	}
	p = newPacer()
	p.adjust()
	p.stop()
	if got := debug.SetGCPercent(was); got != 100 {
		t.Errorf("%d%% is left", got)
	}
}
