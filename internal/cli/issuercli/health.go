package issuercli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func healthcheck(env *cli.Env) *cobra.Command {
	v := newVerb(env, "healthcheck", "Ask the issuer whether it is healthy: exit 0 if so, 1 if not")
	var h cli.Health
	h.AddFlags(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		h.Start(env, "server")
		err := v.call(func(ctx context.Context, cc *grpc.ClientConn) error { return h.Check(ctx, env, cc, "server") })
		if err != nil {
			return fmt.Errorf("server is unhealthy: %w", err)
		}
		fmt.Fprintln(env.Stdout, "Server is healthy.")
		return nil
	}
	return v.Command
}
