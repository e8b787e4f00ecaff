// Command issuer measures an issuer beside the real spire-server, in one run on one machine: CPU for each entry, SVID and
// join, memory, what it uses while idle, under agents that poll and with agents that are told of changes, and how long a restart takes. It has the load, and
// starts and ends both; what the numbers mean is in docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	set, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err == nil {
		err = run(ctx, set, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench issuer:", err)
		os.Exit(1)
	}
}

// settings say how much of what is measured.
type settings struct {
	bin, peers string
	rounds     int
	entries    int
	svids      int
	joins      int
	agents     int
	idle       time.Duration
	parts      string
	markdown   string
}

func parse(args []string, complaints io.Writer) (settings, error) {
	var set settings
	fs := flag.NewFlagSet("issuer", flag.ContinueOnError)
	fs.SetOutput(complaints)
	fs.StringVar(&set.bin, "bin", "bin", "`DIR` of Lanyard's binaries")
	fs.StringVar(&set.peers, "peers", os.Getenv("LANYARD_PEERS"), "`DIR` of spire-server; without it Lanyard is measured alone")
	fs.IntVar(&set.rounds, "rounds", 1, "how often each is measured; the median is printed")
	fs.IntVar(&set.entries, "entries", 100_000, "how many entries are created")
	fs.IntVar(&set.svids, "svids", 5_000, "how many SVIDs are signed in batches of 50, and a fifth as many singly")
	fs.IntVar(&set.joins, "joins", 200, "how many agents join")
	fs.IntVar(&set.agents, "agents", 500, "how many agents poll, and are on streams")
	fs.DurationVar(&set.idle, "idle", 30*time.Second, "how long to watch an issuer that does nothing, and one that is polled")
	fs.StringVar(&set.parts, "run", "", "`PARTS` to measure: svids,joins,entries,agents,streams,restart (default all); entries come before agents, streams and restart")
	fs.StringVar(&set.markdown, "markdown", "", "`FILE` that also takes the tables, as Markdown")
	if err := fs.Parse(args); err != nil {
		return settings{}, err
	}
	if fs.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return set, nil
}

func (s settings) runs(part string) bool {
	if s.parts == "" {
		return true
	}
	for _, p := range strings.Split(s.parts, ",") {
		if strings.TrimSpace(p) == part {
			return true
		}
	}
	return false
}

// run measures every peer in turn, round by round, and prints the tables.
func run(ctx context.Context, set settings, out, progress io.Writer) error {
	bin, err := filepath.Abs(set.bin)
	if err != nil {
		return err
	}
	issuers := []kind{{name: "lanyard", path: filepath.Join(bin, "lanyard-issuer")}}
	names := []string{"lanyard"}
	base := "lanyard"
	if set.peers != "" {
		spire := filepath.Join(set.peers, "spire-server")
		issuers = append([]kind{{name: "spire-server", path: spire, spire: true}}, issuers...)
		names, base = []string{"spire-server", "lanyard"}, "spire-server"
	}
	rep := report.New(base, names, sections)
	for round := range set.rounds {
		for _, k := range issuers {
			fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, set.rounds, k.name)
			m := &measurement{kind: k, set: set, report: rep, progress: progress}
			if err := m.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	if err := rep.Text(out); err != nil {
		return err
	}
	if set.markdown == "" {
		return nil
	}
	file, err := os.Create(set.markdown)
	if err != nil {
		return err
	}
	return errors.Join(rep.Markdown(file), file.Close())
}
