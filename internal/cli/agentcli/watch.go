package agentcli

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

func watch(env *cli.Env) *cobra.Command {
	v := newVerb(env, "watch", "Print this process's X.509-SVIDs now and at each change, until Ctrl-C")
	v.Long = v.Short + ". While there is no identity, or no agent, it says so on standard error and waits."
	v.RunE = func(*cobra.Command, []string) error {
		path, err := v.path()
		if err != nil {
			return err
		}
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		client, err := workload.New(workload.Config{Addr: "unix://" + path})
		if err != nil {
			return err
		}
		ctx, stop := run.Signals(v.Context(), env.Stderr, env.Exit)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- client.Run(ctx) }()
		show(ctx, env, client)
		return <-ended
	}
	return v.Command
}

// show prints each state that tells something new, until ctx ends.
func show(ctx context.Context, env *cli.Env, client *workload.Client) {
	last, told, seen := time.Now(), "", uint64(0)
	for {
		state, changed := client.Observe()
		if state.Context != nil && state.Version != seen {
			seen, told = state.Version, ""
			printSVIDs(env.Stdout, fromContext(env, state.Context), time.Since(last))
			last = time.Now()
		}
		if state.Err != nil {
			if text := cli.RPCError(state.Err).Error(); text != told {
				told = text
				fmt.Fprintln(env.Stderr, inShort(text))
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// noAgent is what gRPC wraps around why it can't connect.
var noAgent = regexp.MustCompile(`^connection error: desc = "transport: Error while dialing: (.*)" \(Unavailable\)$`)

// inShort is an error without gRPC's wrapping, where there is no agent.
func inShort(text string) string {
	return noAgent.ReplaceAllString(text, "no agent answers: $1")
}
