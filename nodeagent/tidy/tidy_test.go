package tidy

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

func TestTidiesAtRestAfterWork(t *testing.T) {
	for _, step := range []struct {
		name  string
		looks []usage
		want  bool // at the last look
	}{
		{"started", []usage{{20 * mib, 3 * mib}, {20*mib + 1, 3 * mib}}, true},
		{"still at work", []usage{{20 * mib, 3 * mib}, {21 * mib, 3 * mib}}, false},
		{"has hardly worked", []usage{{2 * mib, mib}, {2 * mib, mib}}, false},
		{"little for what there is", []usage{{20 * mib, 60 * mib}, {20 * mib, 60 * mib}}, false},
		{"much for what there is", []usage{{60 * mib, 60 * mib}, {60 * mib, 60 * mib}}, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			h := newHeap()
			var got bool
			for _, u := range step.looks {
				got = h.due(u)
			}
			if got != step.want {
				t.Errorf("due: %v", got)
			}
			if got {
				last := step.looks[len(step.looks)-1]
				h.done(last)
				if h.due(last) {
					t.Error("due again, and nothing was done")
				}
			}
		})
	}
}

func TestRunCollectsOnceAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Run(ctx) }()
		sink = make([]byte, 2*worth)
		time.Sleep(time.Minute)
		runtime.ReadMemStats(&after)
		if n := after.NumForcedGC - before.NumForcedGC; n != 2 {
			t.Errorf("%d collections in a minute, want the two of one time", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

var sink []byte
