// Command testall runs every test of the module: the packages with the race detector, then the command lines and the
// integration tests, then each fuzz target for a while. It prints what go test prints for a package, the whole output of
// what failed, and at the end each skipped test with its reason. It installs nothing and builds no product binary.
// Arguments are package patterns, ./... if there are none.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	count := flag.Int("count", 1, "run each unit test `n` times")
	timeout := flag.Duration("timeout", 8*time.Minute, "the longest one package's tests may take")
	fuzztime := flag.Duration("fuzztime", 2*time.Second, "how long each fuzz target runs; 0 for none")
	flag.Parse()
	if !run(ctx, *count, *timeout, *fuzztime) {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, count int, timeout, fuzztime time.Duration) bool {
	begun := time.Now()
	sum := newSummary()
	sum.readSkips(os.Getenv("LANYARD_SKIPS"))
	units, commands, integration, err := packages(ctx, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	plain := []string{"test", "-json", "-vet=off", "-timeout", timeout.String()} // make lint vets it all
	base := slices.Concat(plain, race(sum))
	if len(units) > 0 {
		sum.test(ctx, slices.Concat(base, []string{fmt.Sprintf("-count=%d", count)}, units))
	}
	// Their tests start the program hundreds of times, and with the detector in it that alone takes minutes; what they
	// start is raced where its code is.
	if len(commands) > 0 {
		sum.test(ctx, slices.Concat(plain, []string{fmt.Sprintf("-count=%d", count)}, commands))
	}
	if len(integration) > 0 { // alone, as they measure time; they mostly wait
		sum.test(ctx, slices.Concat(base, []string{"-count=1", "-p=1", "-parallel=4"}, integration))
	}
	if fuzztime > 0 && ctx.Err() == nil {
		fuzzAll(ctx, sum, slices.Concat(units, commands), fuzztime)
	}
	sum.print(time.Since(begun))
	return sum.ok() && ctx.Err() == nil
}

// packages lists the module's packages: those whose tests start processes apart from the others, and the command lines from
// these.
func packages(ctx context.Context, patterns []string) (units, commands, integration []string, err error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	list := exec.CommandContext(ctx, "go", append([]string{"list"}, patterns...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%v: %w", list, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		switch pkg := lines.Text() + "/"; {
		case strings.Contains(pkg, "/integration/"):
			integration = append(integration, lines.Text())
		case strings.HasSuffix(pkg, "/cmd/lanyard/"):
			commands = append(commands, lines.Text())
		default:
			units = append(units, lines.Text())
		}
	}
	return units, commands, integration, lines.Err()
}

// race is the race detector's flag, where its C compiler is.
func race(sum *summary) []string {
	for _, name := range []string{os.Getenv("CC"), "gcc", "clang", "cc"} {
		if name == "" {
			continue
		}
		if _, err := exec.LookPath(name); err == nil {
			return []string{"-race"}
		}
	}
	sum.skips = append(sum.skips, "race detector: no C compiler here")
	return nil
}
