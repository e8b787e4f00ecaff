package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/load"
	"github.com/lanyard-mtls/lanyard/bench/pair"
	"github.com/lanyard-mtls/lanyard/bench/report"
)

// bench is one run.
type bench struct {
	set      settings
	progress io.Writer
	begun    time.Time
	machine  []string // what it runs on, told once

	bed     *pair.Bed
	backend *load.Process
	load    *load.Process
	peers   []*pair.Peer
	unable  map[*pair.Peer]map[pair.Variant]bool // what a check forbids to measure
	report  *report.Report
	notes   []string // for below the tables
}

func newBench(ctx context.Context, set settings, progress io.Writer) (*bench, error) {
	b := &bench{set: set, progress: progress, begun: time.Now(), machine: machine(), unable: map[*pair.Peer]map[pair.Variant]bool{}}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) prepare(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "lybench")
	if err != nil {
		return err
	}
	b.bed = &pair.Bed{Dir: dir}
	if b.bed.MaxOpen, err = raiseOpenFiles(); err != nil {
		return err
	}
	if b.bed.Certs, err = pair.NewCerts(dir); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if b.backend, err = load.Start(ctx, self, roleBackend); err != nil {
		return err
	}
	if b.bed.Backend, err = b.backend.Addr(); err != nil {
		return err
	}
	if b.load, err = load.Start(ctx, self, roleLoad); err != nil {
		return err
	}
	if err := b.findPeers(); err != nil {
		return err
	}
	var names []string
	for _, peer := range b.peers {
		names = append(names, peer.Name)
	}
	b.report = report.New("ghostunnel", names, sections())
	return nil
}

// close ends what prepare started.
func (b *bench) close() error {
	var errs []error
	for _, process := range []*load.Process{b.load, b.backend} {
		if process != nil {
			errs = append(errs, process.Stop())
		}
	}
	if b.bed != nil {
		errs = append(errs, os.RemoveAll(b.bed.Dir))
	}
	return errors.Join(errs...)
}

// raiseOpenFiles lets every process open as many files as the kernel allows, and returns that number.
func raiseOpenFiles() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil { // said aloud, so that children inherit it
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return int(min(limit.Max, 100_000)), nil
}

// findPeers looks for the programs, ours last, and notes by name which are not there.
func (b *bench) findPeers() error {
	sidecar := filepath.Join(b.set.bin, "lanyard-sidecar")
	finders := []struct {
		name string
		find func() (*pair.Peer, error)
	}{
		{"ghostunnel", pair.Ghostunnel},
		{"lanyard", func() (*pair.Peer, error) { return pair.Lanyard("lanyard", sidecar) }},
		{"envoy", func() (*pair.Peer, error) { return pair.Envoy(b.set.envoy) }},
		{"haproxy", pair.Haproxy},
		{"nginx", pair.Nginx},
		{"stunnel", pair.Stunnel},
	}
	for _, also := range b.set.also {
		name, path, _ := strings.Cut(also, "=")
		finders = slices.Insert(finders, 2, struct {
			name string
			find func() (*pair.Peer, error)
		}{name, func() (*pair.Peer, error) { return pair.Lanyard(name, path) }})
	}
	for _, one := range finders {
		if len(b.set.only) > 0 && !slices.Contains(b.set.only, one.name) {
			continue
		}
		peer, err := one.find()
		if err != nil {
			b.note("%s is not measured: %v", one.name, err)
			continue
		}
		b.peers = append(b.peers, peer)
		b.unable[peer] = map[pair.Variant]bool{}
	}
	if len(b.peers) == 0 {
		return fmt.Errorf("nothing to measure: %s", strings.Join(b.notes, "; "))
	}
	return nil
}

// note keeps a line for below the tables, and shows it at once.
func (b *bench) note(format string, args ...any) {
	line := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ") // what a program said may have several lines
	b.notes = append(b.notes, line)
	b.say("%s", line)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "%6.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// runs tells whether a part is chosen.
func (b *bench) runs(part string) bool {
	return len(b.set.parts) == 0 || slices.Contains(b.set.parts, part)
}

// measure runs the parts.
func (b *bench) measure(ctx context.Context) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	for round := range b.set.sizes.rounds {
		for _, task := range tasks {
			if b.runs(task.part) {
				b.say("round %d of %d: %s", round+1, b.set.sizes.rounds, task.what)
				if err := b.round(ctx, round, task); err != nil {
					return err
				}
			}
		}
	}
	if middle, largest, whose := b.report.Spreads(); whose != "" {
		b.note("from the smallest to the largest of the rounds is %.0f%% of the median in the middle, at most %.0f%% (%s)", 100*middle, 100*largest, whose)
	}
	if b.runs("memory") {
		return b.memory(ctx)
	}
	return nil
}

// check has each peer prove what it is measured for.
func (b *bench) check(ctx context.Context) error {
	able := false
	for _, peer := range b.peers {
		seen := map[string][]string{}
		var order []string
		for _, variant := range b.variants() {
			got, err := b.bed.Check(ctx, peer, variant)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				b.unable[peer][variant] = true
				b.note("left out: %v", err)
				continue
			}
			if len(seen[got.String()]) == 0 {
				order = append(order, got.String())
			}
			seen[got.String()] = append(seen[got.String()], variant.String())
		}
		for _, handshake := range order {
			b.note("%s, %s: %s", peer.Name, strings.Join(seen[handshake], " and "), handshake)
			able = true
		}
	}
	if !able {
		return fmt.Errorf("nothing to measure: %s", strings.Join(b.notes, "; "))
	}
	return nil
}

// variants are those that the chosen parts need.
func (b *bench) variants() []pair.Variant {
	var all []pair.Variant
	add := func(v pair.Variant) {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	for _, task := range tasks {
		if b.runs(task.part) {
			add(task.variant)
		}
	}
	if b.runs("memory") {
		add(pair.Variant{})
	}
	return all
}
