package agentcli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentadminv1"
)

func explainVerb(env *cli.Env) *cobra.Command {
	v := newAdminVerb(env, "explain", "Say what a process is to the agent, which identities it has, and what it lacks for others")
	v.Long = v.Short + `.

The agent looks at the process as if it asked for its identities now: who it is by each attestor, its selectors, the entries
that fit and those that nearly do. Nothing is issued. Values of environment variables are shown only where an entry names
them.`
	v.Example = "  lanyard agent explain -pid $(pgrep -o nginx)\n  lanyard agent explain -pid 4711 -output json"
	pid := int32(0)
	v.Flags().Int32Var(&pid, "pid", 0, "`NUMBER` of the process, as the agent sees it: for a container's, the one outside it")
	v.RunE = func(*cobra.Command, []string) error {
		if pid <= 0 {
			return cli.Usagef("-pid is missing: the number of a process")
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			x, err := agentadminv1.NewAdminClient(cc).Explain(ctx, &agentadminv1.ExplainRequest{Pid: pid})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, x, func(w io.Writer) { printExplanation(w, x, time.Now()) })
		})
	}
	return v.Command
}
