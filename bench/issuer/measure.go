package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/report"
)

// The tables.
const (
	secWork    = "work"
	secMemory  = "memory"
	secIdle    = "at rest"
	secRestart = "restart"
)

var sections = []string{secWork, secMemory, secIdle, secRestart}

// settle is how long an issuer is given to come to rest before its memory is read, a garbage collection included.
const settle = 5 * time.Second

// measurement is one issuer in one round.
type measurement struct {
	kind     kind
	set      settings
	report   *report.Report
	progress io.Writer
	server   *server
}

func (m *measurement) run(ctx context.Context) (err error) {
	m.server, err = newServer(m.kind)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, m.server.stop())
		if err == nil {
			err = os.RemoveAll(m.server.dir)
		}
	}()
	if _, err := m.server.start(ctx); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if err := m.memory("empty"); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"joins", m.joins}, {"svids", m.svids}, {"entries", m.entries}, {"agents", m.agents}, {"streams", m.streams}, {"restart", m.restart},
	} {
		if !m.set.runs(part.name) {
			continue
		}
		fmt.Fprintf(m.progress, "  %s\n", part.name)
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func (m *measurement) add(section, name, unit string, value float64) {
	m.report.Add(report.Row{Section: section, Name: name, Unit: unit}, m.kind.name, value)
}

// spend does work and returns the CPU time that the issuer used for it, and how long it took.
func (m *measurement) spend(work func() error) (used, took time.Duration, err error) {
	before, err := m.server.cpu()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := work(); err != nil {
		return 0, 0, err
	}
	took = time.Since(begin)
	after, err := m.server.cpu()
	return after - before, took, err
}

func each(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }

func (m *measurement) memory(when string) error {
	used, err := m.server.resident()
	if err != nil {
		return err
	}
	m.add(secMemory, when, "MiB resident", float64(used.Resident)/1024)
	m.add(secMemory, when+", without what is read from files", "MiB", float64(used.Anonymous)/1024)
	return nil
}

// watch measures what the issuer uses while work, which may be nil, goes on for the time that is set.
func (m *measurement) watch(ctx context.Context, name string) error {
	used, took, err := m.spend(func() error { return pause(ctx, m.set.idle) })
	if err != nil {
		return err
	}
	m.add(secIdle, name, "% of a core", 100*used.Seconds()/took.Seconds())
	return nil
}

func (m *measurement) restart(ctx context.Context) error {
	if err := m.server.stop(); err != nil {
		return err
	}
	took, err := m.server.start(ctx)
	if err != nil {
		return err
	}
	used, err := m.server.cpu()
	if err != nil {
		return err
	}
	m.add(secRestart, fmt.Sprintf("until healthy, %d entries", m.set.entries), "s", took.Seconds())
	m.add(secRestart, "CPU until then", "s", used.Seconds())
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
