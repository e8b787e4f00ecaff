package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/proc"
	"github.com/lanyard-mtls/lanyard/bench/report"
)

// The tables.
const (
	secChanges = "a change, until a stream that waits has it"
	secFirst   = "a new workload's first SVID"
	secCalls   = "FetchX509SVID"
	secMemory  = "memory of the agent"
	secIdle    = "at rest"
)

// measurement is one pair's.
type measurement struct {
	pair
	set      settings
	report   *report.Report
	progress io.Writer
	programs *programs
	watcher  *watcher
}

func (m *measurement) run(ctx context.Context) (err error) {
	m.programs, err = startPrograms(ctx, m.pair)
	if m.programs != nil {
		defer func() {
			m.programs.stop()
			if err == nil {
				err = os.RemoveAll(m.programs.dir)
			}
		}()
	}
	if err != nil {
		return err
	}
	if _, err := m.programs.create(ctx, entry("/waits", os.Getuid())); err != nil {
		return err
	}
	if err := m.watch(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.watcher.close()) }()
	have := 0
	for i, n := range m.set.entries {
		if i > 0 && m.changesOnly || i > 1 && m.polls {
			break
		}
		m.say("%d entries", n)
		if err := m.fill(ctx, have, n); err != nil {
			return err
		}
		have = n
		if err := m.with(ctx, n, i == 0); err != nil {
			return fmt.Errorf("with %d entries: %w", n, err)
		}
	}
	return nil
}

// with measures what there is to measure with so many entries.
func (m *measurement) with(ctx context.Context, entries int, fewest bool) error {
	steps := []struct {
		part string
		run  func(context.Context) error
		when bool
	}{
		{"streams", func(ctx context.Context) error { return m.atRest(ctx, entries) }, !m.changesOnly},
		{"changes", m.changes, fewest},
		{"first", func(ctx context.Context) error { return m.first(ctx, entries) }, !m.changesOnly},
		{"calls", m.calls, fewest && !m.changesOnly},
		{"streams", m.streams, fewest && !m.changesOnly},
	}
	for _, step := range steps {
		if !step.when || !m.set.runs(step.part) {
			continue
		}
		m.say("  %s", step.part)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.part, err)
		}
	}
	return nil
}

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.progress, "  "+format+"\n", args...)
}

func (m *measurement) watch(ctx context.Context) (err error) {
	m.watcher, err = watch(ctx, m.programs.socket())
	return err
}

func (m *measurement) add(section, name, unit string, value float64) {
	m.report.Add(report.Row{Section: section, Name: name, Unit: unit}, m.name, value)
}

// times adds what half and all but a hundredth of the samples are below.
func (m *measurement) times(section, name string, samples []time.Duration) {
	slices.Sort(samples)
	at := func(part float64) float64 {
		return float64(samples[max(0, int(math.Ceil(part*float64(len(samples))))-1)].Microseconds()) / 1000
	}
	m.add(section, name+", p50", "ms", at(0.5))
	m.add(section, name+", p99", "ms", at(0.99))
	m.say("    %s: %d samples, p50 %.2f ms, p99 %.2f ms, worst %.2f ms", name, len(samples), at(0.5), at(0.99), at(1))
}

// settle waits until the agent does nothing any more, for at most half a minute.
func (m *measurement) settle(ctx context.Context) error {
	const look = time.Second
	quiet := 0
	for begin := time.Now(); time.Since(begin) < 30*time.Second && quiet < 3; {
		used, err := m.spend(func() error { return pause(ctx, look) })
		if err != nil {
			return err
		}
		quiet++
		if used > look/50 {
			quiet = 0
		}
	}
	return nil
}

// spend does work and returns the CPU time that the agent used for it.
func (m *measurement) spend(work func() error) (time.Duration, error) {
	pids := []int{m.programs.agent.pid()}
	before, err := proc.CPU(pids)
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := proc.CPU(pids)
	return after - before, err
}

func (m *measurement) resident() (proc.Memory, error) {
	return proc.Resident([]int{m.programs.agent.pid()})
}
