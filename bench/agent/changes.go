package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// changes measures the time from asking the issuer for a change until a stream that waits is given its outcome. Changes
// begin at random moments, whatever became of those before: where an agent polls, many are under way at once.
func (m *measurement) changes(ctx context.Context) error {
	created := make([]time.Duration, m.samples())
	removed := make([]time.Duration, m.samples())
	err := m.each(ctx, len(created), func(ctx context.Context, i int) (err error) {
		created[i], removed[i], err = m.entryComesAndGoes(ctx, fmt.Sprintf("/change/%d", i))
		return err
	})
	if err != nil {
		return err
	}
	m.times(secChanges, "entry created", created)
	m.times(secChanges, "entry removed", removed)
	return m.bundles(ctx)
}

func (m *measurement) samples() int {
	if m.polls {
		return m.set.polled
	}
	return m.set.changes
}

// gap is a random time around which changes follow one another.
func (m *measurement) gap() time.Duration {
	around := 30 * time.Millisecond
	if m.polls {
		around = 400 * time.Millisecond
	}
	return around/2 + time.Duration(rand.Int64N(int64(around)))
}

// each takes every sample.
func (m *measurement) each(ctx context.Context, samples int, sample func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for i := range samples {
		if pause(ctx, m.gap()) != nil {
			break
		}
		running.Go(func() {
			if err := sample(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func (m *measurement) entryComesAndGoes(ctx context.Context, path string) (created, removed time.Duration, err error) {
	come := m.watcher.expect(func(t told) bool { return t.has(path) })
	begin := time.Now()
	ids, err := m.programs.create(ctx, entry(path, os.Getuid()))
	if err != nil {
		return 0, 0, err
	}
	at, err := m.watcher.wait(ctx, come)
	if err != nil {
		return 0, 0, fmt.Errorf("created: %w", err)
	}
	created = at.Sub(begin)
	wait := m.gap()
	if m.polls {
		wait *= time.Duration(1 + rand.IntN(12)) // any moment between two polls
	}
	if err := pause(ctx, wait); err != nil {
		return 0, 0, err
	}
	gone := m.watcher.expect(func(t told) bool { return !t.has(path) })
	begin = time.Now()
	if err := m.programs.delete(ctx, ids[0]); err != nil {
		return 0, 0, err
	}
	if at, err = m.watcher.wait(ctx, gone); err != nil {
		return 0, 0, fmt.Errorf("removed: %w", err)
	}
	return created, at.Sub(begin), nil
}
