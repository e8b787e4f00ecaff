// Command bench measures a pair of Lanyard sidecars beside pairs of other proxies, all in one run: the CPU time and the memory
// of plain TCP into a client, mutual TLS to a server, and plain TCP out of it. It prints medians and their ratios to ghostunnel's.
// It judges nothing, installs nothing, and ends all it started.
//
// Usage: bench [flags]. It starts itself again for the load and for the program behind the proxies.
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
	"slices"
	"strings"
	"syscall"

	"github.com/lanyard-mtls/lanyard/bench/load"
)

func main() {
	if served, err := serveRole(os.Args); served {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	set, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2) // parse has said why
	}
	if err := run(ctx, set, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// The roles of the processes that bench starts itself.
const (
	roleLoad    = "serve-load"
	roleBackend = "serve-backend"
)

// serveRole serves a role if the arguments ask for one.
func serveRole(args []string) (served bool, err error) {
	switch {
	case len(args) != 2:
		return false, nil
	case args[1] == roleLoad:
		return true, load.Generate(os.Stdin, os.Stdout)
	case args[1] == roleBackend:
		return true, load.ServeBackend(os.Stdin, os.Stdout)
	default:
		return false, nil
	}
}

type settings struct {
	bin, envoy, lean string
	also             []string // NAME=BINARY
	only             []string // names of peers; all if empty
	parts            []string
	markdown         string
	sizes            sizes
}

// parts of the benchmark, in the order they run.
var parts = []string{"bulk", "rt", "connect", "memory"}

// parse reads the command line. What is wrong with it is told to complaints.
func parse(args []string, complaints io.Writer) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.StringVar(&set.bin, "bin", "bin", "`folder` of Lanyard's binaries")
	flags.StringVar(&set.envoy, "envoy", "", "Envoy's `binary`")
	flags.StringVar(&set.lean, "lean", "", "a sidecar `binary` built with -tags noopa, of which the memory at start is told")
	flags.Func("also", "`NAME=BINARY`: another Lanyard sidecar to measure in the same run; may be given more than once", func(s string) error {
		if name, path, found := strings.Cut(s, "="); !found || name == "" || path == "" {
			return errors.New("give NAME=BINARY")
		}
		set.also = append(set.also, s)
		return nil
	})
	only := flags.String("only", "", "`names` of the peers to measure, between commas (default all that are there)")
	chosen := flags.String("run", "", "`parts` to run, between commas: "+strings.Join(parts, ", ")+" (default all)")
	rounds := flags.Int("rounds", 0, "how often each peer has its turn (default 5, 2 with -quick)")
	quick := flags.Bool("quick", false, "short turns, and 1,000 idle connections at most")
	flags.StringVar(&set.markdown, "markdown", "", "write the tables as Markdown to this `file`, between its marks "+markBegin+" and "+markEnd+"; - prints them")
	err := flags.Parse(args)
	set.only, set.parts = split(*only), split(*chosen)
	for _, path := range []*string{&set.bin, &set.envoy, &set.lean} { // what is started has a directory of its own
		if *path != "" && err == nil {
			*path, err = filepath.Abs(*path)
		}
	}
	switch {
	case err != nil:
		return settings{}, err
	case flags.NArg() > 0:
		err = fmt.Errorf("argument %q: bench takes flags only", flags.Arg(0))
	case *rounds < 0:
		err = fmt.Errorf("-rounds %d: give 1 or more", *rounds)
	}
	for _, part := range set.parts {
		if !slices.Contains(parts, part) {
			err = fmt.Errorf("-run %s: no such part; there are %s", part, strings.Join(parts, ", "))
		}
	}
	if err != nil {
		fmt.Fprintln(complaints, err)
		return settings{}, err
	}
	set.sizes = full
	if *quick {
		set.sizes = short
	}
	if *rounds > 0 {
		set.sizes.rounds = *rounds
	}
	return set, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// run measures, and prints the tables to out; how far it is goes to progress.
func run(ctx context.Context, set settings, out, progress io.Writer) (err error) {
	if set.markdown != "" && set.markdown != "-" { // better now than after it all
		if _, _, err := cutAtMarks(set.markdown); err != nil {
			return err
		}
	}
	b, err := newBench(ctx, set, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.measure(ctx); err != nil {
		return err
	}
	return b.print(out)
}
