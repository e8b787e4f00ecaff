// Command demo shows Lanyard's whole path on real programs that know nothing of it: Python's http.server and curl, once
// between two sidecars and once between two Envoys, with identities that rotate under load and an issuer that is killed
// meanwhile. It exits with 0 only if everything it shows held, and leaves no process and no file behind.
//
// DEMO_BREAK=policy|rotation|issuer breaks that part on purpose, so that the demo must fail. DEMO_SECONDS bounds how long
// it waits for the rotations (40).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

type settings struct {
	bin, envoy string
	breaks     string        // policy, rotation, issuer; empty for a demo that must hold
	patience   time.Duration // for the rotations
}

var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx); {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		os.Exit(1) // the show has said why
	}
}

func run(ctx context.Context) error {
	set := settings{breaks: os.Getenv("DEMO_BREAK"), patience: 40 * time.Second}
	flag.StringVar(&set.bin, "bin", "bin", "folder of Lanyard's binaries")
	flag.StringVar(&set.envoy, "envoy", "", "Envoy's binary; without it the Envoy leg is skipped")
	flag.Parse()
	if !slices.Contains([]string{"", "policy", "rotation", "issuer"}, set.breaks) {
		return fmt.Errorf("%w: DEMO_BREAK=%s: give policy, rotation or issuer", errUsage, set.breaks)
	}
	if text := os.Getenv("DEMO_SECONDS"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 1 {
			return fmt.Errorf("%w: DEMO_SECONDS=%s: give a number of seconds", errUsage, text)
		}
		set.patience = time.Duration(seconds) * time.Second
	}
	var err error
	if set.bin, err = filepath.Abs(set.bin); err != nil {
		return err
	}
	if _, err := os.Stat(set.envoy); err != nil {
		set.envoy = ""
	}
	return perform(ctx, set, newScreen(os.Stdout))
}

// perform runs the demo as its own small test: what it starts is cleaned up whatever happens.
func perform(ctx context.Context, set settings, out *screen) (err error) {
	begun := time.Now()
	show := &show{screen: out, ctx: ctx}
	defer func() {
		if reason := recover(); reason != nil {
			failed, ok := reason.(failure)
			if !ok {
				panic(reason)
			}
			err = failed
		}
		if cleanErr := show.clean(); err == nil {
			err = cleanErr
		}
		took := time.Since(begun).Round(100 * time.Millisecond)
		if err != nil {
			out.bad("FAILED after %v: %v", took, err)
		} else {
			out.good("All of it held, in %v. Nothing is left behind.", took)
		}
	}()
	play(show, set)
	return nil
}
