package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
)

func tokenGenerate(env *cli.Env) *cobra.Command {
	v := newVerb(env, "generate", "Make a join token, with which one node agent can join once").withOutput()
	v.Example = "  lanyard issuer token generate -spiffeID spiffe://example.org/node/db1"
	ttl, id := 600, ""
	v.Flags().IntVar(&ttl, "ttl", ttl, "`SECONDS` the token may be used in")
	v.Flags().StringVar(&id, "spiffeID", "", "SPIFFE `ID` that entries can name as parent for the agent that joins with the token")
	v.RunE = func(*cobra.Command, []string) error {
		agent, err := optionalID("spiffeID", id)
		if err != nil {
			return err
		}
		life, err := seconds("ttl", ttl)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			token, err := agentv1.NewAgentClient(cc).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{AgentId: agent, Ttl: life})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, token, func(w io.Writer) {
				fmt.Fprintf(w, "Token: %s\n", token.Value)
				if id == "" {
					fmt.Fprintln(w, "Warning: Missing SPIFFE ID.")
				}
			})
		})
	}
	return v.Command
}
