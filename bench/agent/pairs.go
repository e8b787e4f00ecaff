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

	"github.com/lanyard-mtls/lanyard/bench/report"
)

// pair is an issuer and an agent to measure.
type pair struct {
	name                  string
	issuerPath, agentPath string
	sql                   bool // the issuer is SPIRE's
	polls                 bool // changes take seconds
	changesOnly           bool // the rest is measured of the same agent elsewhere
}

// pairs are those that are wanted, SPIRE's first, and the name of the one that others are compared to.
func (s settings) pairs() ([]pair, string, error) {
	bin, err := filepath.Abs(s.bin)
	if err != nil {
		return nil, "", err
	}
	ours := pair{name: "lanyard", issuerPath: filepath.Join(bin, "lanyard-issuer"), agentPath: filepath.Join(bin, "lanyard-agent")}
	var all []pair
	base := ours.name
	if s.peers != "" {
		server := filepath.Join(s.peers, "spire-server")
		all = append(all, pair{name: "spire", issuerPath: server, agentPath: filepath.Join(s.peers, "spire-agent"), sql: true, polls: true})
		base = "spire"
	}
	all = append(all, ours)
	for _, also := range s.also {
		name, path, _ := strings.Cut(also, "=")
		if path, err = filepath.Abs(path); err != nil {
			return nil, "", err
		}
		all = append(all, pair{name: name, issuerPath: ours.issuerPath, agentPath: path})
	}
	if s.peers != "" {
		all = append(all, pair{name: "lanyard-under-spire", issuerPath: all[0].issuerPath, agentPath: ours.agentPath, sql: true, polls: true, changesOnly: true})
	}
	if len(s.only) > 0 {
		all = slices.DeleteFunc(all, func(p pair) bool { return !slices.Contains(s.only, p.name) })
	}
	if len(all) == 0 {
		return nil, "", fmt.Errorf("-only %s: nothing has that name", strings.Join(s.only, ","))
	}
	return all, base, nil
}

// run measures every pair in turn, and prints the tables.
func run(ctx context.Context, set settings, out, progress io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: each new workload is a user of its own")
	}
	pairs, base, err := set.pairs()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range pairs {
		names = append(names, p.name)
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Fprintf(out, "load average before: %s(what else runs makes all figures worse, and ratios worth less)\n\n", load)
	}
	rep := report.New(base, names, nil)
	for _, p := range pairs {
		fmt.Fprintln(progress, p.name)
		m := &measurement{pair: p, set: set, report: rep, progress: progress}
		if err := m.run(ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), rep.Text(out))
		}
	}
	if err := rep.Text(out); err != nil {
		return err
	}
	return errors.Join(write(set.markdown, rep.Markdown), write(set.json, rep.JSON))
}

// write makes a file, if it has a name.
func write(path string, content func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(content(file), file.Close())
}
