package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/load"
	"github.com/lanyard-mtls/lanyard/bench/pair"
	"github.com/lanyard-mtls/lanyard/bench/proc"
	"github.com/lanyard-mtls/lanyard/bench/report"
)

// holding is a peer's pair whose memory is measured.
type holding struct {
	*bench
	peer  *pair.Peer
	pair  *pair.Pair
	pids  []int
	start proc.Memory
	freed <-chan freed // when connections were closed
}

type freed struct {
	proc.Memory
	err error
}

// memory measures each peer once: memory varies little. All pairs stay until the last has had its minute after closing.
func (b *bench) memory(ctx context.Context) (err error) {
	var all []*holding
	defer func() {
		for _, h := range all {
			err = errors.Join(err, h.pair.Stop())
		}
	}()
	for _, peer := range b.peers {
		if b.unable[peer][pair.Variant{}] {
			continue
		}
		b.say("memory: %s", peer.Name)
		p, err := b.bed.Start(ctx, peer, pair.Variant{})
		if err != nil {
			b.note("%s, memory: %v", peer.Name, err)
			continue
		}
		h := &holding{bench: b, peer: peer, pair: p}
		all = append(all, h)
		err = h.measure(ctx)
		if _, closeErr := b.load.Do(load.Order{Do: "close"}); closeErr != nil {
			return errors.Join(err, closeErr)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.note("%s, memory: %v", peer.Name, err)
			continue
		}
		h.watch(ctx)
	}
	for _, h := range all {
		if err := h.givenBack(); err != nil {
			return err
		}
	}
	return b.leanStart(ctx)
}

// measure opens connections and has them move bytes. They stay open.
func (h *holding) measure(ctx context.Context) error {
	server, client, err := h.pair.PIDs()
	if err != nil {
		return err
	}
	h.pids = append(server, client...)
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	if h.start, err = proc.Resident(h.pids); err != nil {
		return err
	}
	h.add(startSection, "at start", "MiB", mebi(h.start.Resident)/2)
	h.add(startSection, "at start, PSS", "MiB", mebi(h.start.Shared)/2)
	h.add(startSection, "at start, anonymous", "MiB", mebi(h.start.Anonymous)/2)
	open := 0
	for _, conns := range h.counts() {
		if _, err := h.load.Do(load.Order{Do: "open", Addr: h.pair.Addr, Conns: conns - open}); err != nil {
			return err
		}
		open = conns
		if err := h.record(ctx, connections(conns), conns); err != nil {
			return err
		}
	}
	for _, upload := range []bool{true, false} {
		order := load.Order{Do: "bulk", Conns: 64, Bytes: h.set.sizes.moved * int64(open), Upload: upload}
		if _, err := h.load.Do(order); err != nil {
			return err
		}
	}
	return h.record(ctx, connections(open)+" after 256 KiB each way", open)
}

// counts are the numbers of connections that the open files allow: a proxy has two for each.
func (h *holding) counts() []int {
	most := (h.bed.MaxOpen - 1000) / 2
	var counts []int
	for _, n := range h.set.sizes.idle {
		counts = append(counts, min(n, most))
	}
	return slices.Compact(counts)
}

func (h *holding) record(ctx context.Context, name string, conns int) error {
	if err := pause(ctx, h.set.sizes.settle); err != nil {
		return err
	}
	now, err := proc.Resident(h.pids)
	if err != nil {
		return err
	}
	grown := now.Sub(h.start)
	h.add(idleSection, name, "KiB", float64(grown.Resident)/float64(conns))
	h.add(idleSection, name+", anonymous", "KiB", float64(grown.Anonymous)/float64(conns))
	return nil
}

func (h *holding) add(section, name, unit string, value float64) {
	h.report.Add(report.Row{Section: section, Name: name, Unit: unit}, h.peer.Name, value)
}

// watch reads the memory again some time after now, when connections have been closed.
func (h *holding) watch(ctx context.Context) {
	done := make(chan freed, 1)
	h.freed = done
	go func() {
		if err := pause(ctx, h.set.sizes.given); err != nil {
			done <- freed{err: err}
			return
		}
		now, err := proc.Resident(h.pids)
		done <- freed{now, err}
	}()
}

func (h *holding) givenBack() error {
	if h.freed == nil {
		return nil
	}
	got := <-h.freed
	if got.err != nil {
		return got.err
	}
	row := report.Row{Section: idleSection, Unit: "MiB", Bare: true}
	row.Name = fmt.Sprintf("%.0f s after closing all, more than at start", h.set.sizes.given.Seconds())
	h.report.Add(row, h.peer.Name, mebi(got.Sub(h.start).Resident))
	return nil
}

// leanStart measures what a sidecar without OPA has at start, if there is one.
func (b *bench) leanStart(ctx context.Context) error {
	if _, err := os.Stat(b.set.lean); b.set.lean == "" || err != nil {
		return nil
	}
	lean, err := pair.Lanyard("lanyard", b.set.lean)
	if err != nil {
		b.note("the sidecar without OPA: %v", err)
		return nil
	}
	p, err := b.bed.Start(ctx, lean, pair.Variant{})
	if err != nil {
		b.note("the sidecar without OPA: %v", err)
		return nil
	}
	server, client, err := p.PIDs()
	if err == nil {
		err = pause(ctx, 2*time.Second)
	}
	if err == nil {
		var now proc.Memory
		if now, err = proc.Resident(append(server, client...)); err == nil {
			row := report.Row{Section: startSection, Name: "at start, built with -tags noopa", Unit: "MiB", Bare: true}
			b.report.Add(row, "lanyard", mebi(now.Resident)/2)
		}
	}
	return errors.Join(err, p.Stop())
}

func mebi(kibi int64) float64 { return float64(kibi) / 1024 }

// pause waits, or returns the context's error.
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
