package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/bench/proc"
)

const (
	// idle is how long an agent at rest is watched.
	idle = 10 * time.Second
	// opening is how long all the streams may take to be answered.
	opening = time.Minute
)

// atRest measures what the agent uses with so many entries, and one stream.
func (m *measurement) atRest(ctx context.Context, entries int) error {
	if err := m.settle(ctx); err != nil {
		return err
	}
	used, err := m.spend(func() error { return pause(ctx, idle) })
	if err != nil {
		return err
	}
	m.add(secIdle, fmt.Sprintf("%d entries", entries), "% of a core", 100*used.Seconds()/idle.Seconds())
	mem, err := m.resident()
	if err != nil {
		return err
	}
	m.memory(fmt.Sprintf("%d entries", entries), mem)
	return nil
}

func (m *measurement) memory(when string, mem proc.Memory) {
	m.add(secMemory, when, "MiB resident", float64(mem.Resident)/1024)
	m.add(secMemory, when+", without what is read from files", "MiB", float64(mem.Anonymous)/1024)
}

// streams measures the memory of streams that wait, each time at an agent that has just started: what was used once is
// not given back at once.
func (m *measurement) streams(ctx context.Context) error {
	if err := m.grow(ctx, "on one connection", 1); err != nil {
		return err
	}
	return m.grow(ctx, "each on a connection of its own", m.set.streams)
}

func (m *measurement) grow(ctx context.Context, how string, conns int) error {
	if err := m.restart(ctx); err != nil {
		return err
	}
	before, err := m.inUse(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	open := make([]*grpc.ClientConn, conns)
	for i := range open {
		if open[i], err = dial(m.programs.socket()); err != nil {
			return err
		}
		defer open[i].Close()
	}
	late := time.AfterFunc(opening, cancel)
	for i := range m.set.streams {
		if _, _, err := fetch(ctx, open[i%conns]); err != nil {
			return fmt.Errorf("stream %d of %d, %s: %w", i+1, m.set.streams, how, err)
		}
	}
	late.Stop()
	after, err := m.inUse(ctx)
	if err != nil {
		return err
	}
	grown := after.Sub(before)
	name := fmt.Sprintf("%d streams more, %s", m.set.streams, how)
	m.add(secMemory, name, "MiB more", float64(grown.Resident)/1024)
	m.add(secMemory, "of these, each", "KiB anonymous, "+how, float64(grown.Anonymous)/float64(m.set.streams))
	return nil
}

// inUse is the memory once some calls have come and gone: both agents collect what they no longer use only as they use more.
func (m *measurement) inUse(ctx context.Context) (proc.Memory, error) {
	conn, err := dial(m.programs.socket())
	if err != nil {
		return proc.Memory{}, err
	}
	defer conn.Close()
	for range m.set.calls / 2 {
		if err := fetchOnce(ctx, conn); err != nil {
			return proc.Memory{}, err
		}
	}
	if err := m.settle(ctx); err != nil {
		return proc.Memory{}, err
	}
	return m.resident()
}

// restart starts the agent anew on its state.
func (m *measurement) restart(ctx context.Context) error {
	if err := errors.Join(m.watcher.close(), m.programs.agent.stop()); err != nil {
		return err
	}
	if err := m.programs.startAgent(ctx); err != nil {
		return err
	}
	return m.watch(ctx)
}
