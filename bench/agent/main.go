// Command agent measures a node agent with its issuer beside the real spire-agent with spire-server, in one run on one
// machine: how long a change takes to reach a workload that waits, how long a new workload waits for its first SVID, what a
// call costs, and what memory entries and streams take. It has the load, and starts and ends all of them. It judges nothing.
//
// What it starts as a new workload is this binary itself, under another user each time: so it needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := start(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		err = nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench agent:", err)
		os.Exit(1)
	}
}

// start is the benchmark, or a workload of it.
func start(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == workloadVerb {
		return beWorkload(ctx, args[1], os.Stdout)
	}
	set, err := parse(args, os.Stderr)
	if err != nil {
		return err
	}
	return run(ctx, set, os.Stdout, os.Stderr)
}

// parts of the benchmark, in the order they run.
var parts = []string{"changes", "first", "calls", "streams"}

// settings say how much of what is measured.
type settings struct {
	bin, peers string
	also       []string // NAME=BINARY of agents
	only       []string // names of pairs; all if empty
	parts      []string // all if empty
	changes    int
	polled     int // changes where they are polled for
	starts     int
	calls      int
	streams    int
	entries    []int // of which the last is for ours alone
	markdown   string
	json       string
}

func parse(args []string, complaints io.Writer) (settings, error) {
	set := settings{entries: []int{1_000, 10_000, 100_000}}
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	fs.SetOutput(complaints)
	fs.StringVar(&set.bin, "bin", "bin", "`DIR` of Lanyard's binaries")
	fs.StringVar(&set.peers, "peers", os.Getenv("LANYARD_PEERS"), "`DIR` of spire-server and spire-agent; without it Lanyard is measured alone")
	fs.Func("also", "`NAME=BINARY`: another Lanyard agent to measure in the same run; may be given more than once", func(s string) error {
		if name, path, found := strings.Cut(s, "="); !found || name == "" || path == "" {
			return errors.New("give NAME=BINARY")
		}
		set.also = append(set.also, s)
		return nil
	})
	only := fs.String("only", "", "`NAMES` of what to measure, between commas: spire, lanyard, lanyard-under-spire and those of -also (default all)")
	chosen := fs.String("run", "", "`PARTS` to measure, between commas: "+strings.Join(parts, ", ")+" (default all)")
	fs.IntVar(&set.changes, "changes", 200, "how many entries and authorities come and go")
	fs.IntVar(&set.polled, "polled", 40, "the same where an agent polls, and each takes seconds")
	fs.IntVar(&set.starts, "starts", 200, "how many new workloads start for each number of entries; a quarter of it where one takes half a second")
	fs.IntVar(&set.calls, "calls", 2_000, "how many SVIDs are fetched to know what one costs")
	fs.IntVar(&set.streams, "streams", 500, "how many streams wait")
	small := fs.Bool("small", false, "1,000 entries alone")
	fs.StringVar(&set.markdown, "markdown", "", "`FILE` that also takes the tables, as Markdown")
	fs.StringVar(&set.json, "json", "", "`FILE` that also takes the figures, as JSON")
	if err := fs.Parse(args); err != nil {
		return settings{}, err
	}
	if fs.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	set.only, set.parts = split(*only), split(*chosen)
	for _, part := range set.parts {
		if !slices.Contains(parts, part) {
			return settings{}, fmt.Errorf("-run %s: no such part; there are %s", part, strings.Join(parts, ", "))
		}
	}
	if *small {
		set.entries = set.entries[:1]
	}
	return set, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func (s settings) runs(part string) bool { return len(s.parts) == 0 || slices.Contains(s.parts, part) }
