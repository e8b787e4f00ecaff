package issuercli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func healthcheck(env *cli.Env) *cobra.Command {
	v := newVerb(env, "healthcheck", "Ask the issuer whether it is healthy: exit 0 if so, 1 if not").withOutput()
	var h cli.Health
	h.AddFlags(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		if !v.out.JSON() {
			h.Start(env, "server")
		}
		err := v.call(func(ctx context.Context, cc *grpc.ClientConn) error { return h.Check(ctx, env, cc, "server") })
		if err != nil {
			err = fmt.Errorf("server is unhealthy: %w", err)
		}
		told := v.out.Struct(env.Stdout, map[string]bool{"healthy": err == nil}, func(w io.Writer) {
			if err == nil {
				fmt.Fprintln(w, "Server is healthy.")
			}
		})
		return errors.Join(err, told)
	}
	return v.Command
}
