package svidcache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// TestManyStreamsAreToldAtAPace changes a bundle that many streams have.
func TestManyStreamsAreToldAtAPace(t *testing.T) {
	for _, c := range []struct {
		streams   int
		least     int // told with no delay
		last      time.Duration
		callers   int
		lastAtOne time.Duration
	}{
		{streams: 100, callers: 1, least: 100, last: 0},
		{streams: 200, callers: 200, least: 200, last: 0},
		{streams: 1000, callers: 7, least: 150, last: time.Second},
		{streams: 10_000, callers: 1, least: 200, last: 3500 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.streams), func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				w.give(entry("a"), entry("late"))
				ctx, cancel := context.WithCancel(t.Context())
				var streams sync.WaitGroup
				defer streams.Wait()
				defer cancel()
				var mu sync.Mutex
				var told []time.Time
				for i := range c.streams {
					streams.Go(func() {
						sub := w.Subscribe(caller("unix:uid:a", fmt.Sprint("unix:gid:", i%c.callers)))
						defer sub.Close()
						for {
							if _, err := sub.Answer(ctx); err != nil {
								return
							}
							mu.Lock()
							told = append(told, time.Now())
							mu.Unlock()
						}
					})
				}
				synctest.Wait()
				time.Sleep(time.Minute)
				told = nil
				next := w.state.Bundle.Clone()
				next.AddX509Authority(testca.New(t, "example.org").Cert)
				w.state.Bundle = next
				began := time.Now()
				w.Apply(w.state)
				synctest.Wait()
				mu.Lock()
				if n := len(told); n < c.least || n > atOnce {
					t.Errorf("%d told at once", n)
				}
				mu.Unlock()
				// Who comes now waits for none of them.
				late := w.Subscribe(caller("unix:uid:late"))
				defer late.Close()
				answer(t, late)
				if took := time.Since(began); took > 0 {
					t.Errorf("a new stream waited %s", took)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if len(told) != c.streams {
					t.Fatalf("%d of %d told", len(told), c.streams)
				}
				if last := slices.MaxFunc(told, time.Time.Compare).Sub(began); last > c.last {
					t.Errorf("the last was told after %s", last)
				}
			})
		})
	}
}

// Losing an identity is no news that can wait.
func TestManyStreamsLoseTheirIdentityAtOnce(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.give(entry("a"))
		var streams sync.WaitGroup
		var lost atomic.Int32
		for range 1000 {
			streams.Go(func() {
				sub := w.Subscribe(caller("unix:uid:a"))
				defer sub.Close()
				for {
					if _, err := sub.Answer(t.Context()); err != nil {
						lost.Add(1)
						return
					}
				}
			})
		}
		synctest.Wait()
		w.give()
		if n := lost.Load(); n != 1000 {
			t.Errorf("%d of 1000 know", n)
		}
		streams.Wait()
	})
}

// TestAgentThatSleptRenewsInOrder lets the machine sleep past the half life of all
// SVIDs: none is asked for twice, what somebody waits for comes first, and the next
// renewals are spread again.
func TestAgentThatSleptRenewsInOrder(t *testing.T) {
	var slept atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
	inWorld(t, Config{MaxSize: 2000, Now: now}, func(t *testing.T, w *world) {
		w.issuer.now = now
		var entries []registration.Entry
		for i := range 700 {
			entries = append(entries, entry(fmt.Sprintf("e%04d", i)))
		}
		w.give(entries...)
		w.issuer.set(func(s *issuer) { s.calls = nil })
		slept.Store(int64(40 * time.Minute))
		time.Sleep(longestSleep + time.Second)
		synctest.Wait()
		w.issuer.set(func(s *issuer) {
			asked := 0
			for _, c := range s.calls {
				if len(c.ids) > maxBatch {
					t.Errorf("%d asked for at once", len(c.ids))
				}
				asked += len(c.ids)
			}
			if asked != len(entries) {
				t.Errorf("%d SVIDs asked for, want %d", asked, len(entries))
			}
			s.calls = nil
		})
		began := time.Now()
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		w.issuer.set(func(s *issuer) {
			perMinute := make(map[int]int)
			for _, c := range s.calls {
				perMinute[int(c.at.Sub(began).Minutes())] += len(c.ids)
			}
			if len(perMinute) < 3 {
				t.Errorf("the next renewals were not spread: %v by minute", perMinute)
			}
		})
	})
}
