package issuercli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// oneAgent makes a verb about the agent that -spiffeID names.
func oneAgent(env *cli.Env, name, short string, do func(ctx context.Context, c agentv1.AgentClient, id *types.SPIFFEID) (answer proto.Message, pretty func(io.Writer), err error)) *cobra.Command {
	v := newVerb(env, name, short).withOutput()
	var spiffeID string
	v.Flags().StringVar(&spiffeID, "spiffeID", "", "SPIFFE `ID` of the agent")
	v.RunE = func(*cobra.Command, []string) error {
		id, err := requiredID("spiffeID", spiffeID, `the agent's ("lanyard issuer agent list" shows them)`)
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			answer, pretty, err := do(ctx, agentv1.NewAgentClient(cc), id)
			if err != nil {
				return fmt.Errorf("agent %s: %w", spiffeID, err)
			}
			return v.out.Proto(env.Stdout, answer, pretty)
		})
	}
	return v.Command
}

func agentShow(env *cli.Env) *cobra.Command {
	return oneAgent(env, "show", "Show one node agent, with its selectors", func(ctx context.Context, c agentv1.AgentClient, id *types.SPIFFEID) (proto.Message, func(io.Writer), error) {
		agent, err := c.GetAgent(ctx, &agentv1.GetAgentRequest{Id: id})
		return agent, func(w io.Writer) {
			fmt.Fprint(w, "Found an attested agent given its SPIFFE ID\n\n")
			printAgent(w, agent)
			for _, s := range agent.Selectors {
				fmt.Fprintf(w, "Selectors         : %s:%s\n", s.Type, s.Value)
			}
		}, err
	})
}

func agentBan(env *cli.Env) *cobra.Command {
	return oneAgent(env, "ban", "Ban a node agent: it gets no SVIDs, and can't join again until it is evicted", func(ctx context.Context, c agentv1.AgentClient, id *types.SPIFFEID) (proto.Message, func(io.Writer), error) {
		done, err := c.BanAgent(ctx, &agentv1.BanAgentRequest{Id: id})
		return done, func(w io.Writer) { fmt.Fprintln(w, "Agent banned successfully") }, err
	})
}

func agentEvict(env *cli.Env) *cobra.Command {
	return oneAgent(env, "evict", "Forget a node agent: it gets no SVIDs until it joins again", func(ctx context.Context, c agentv1.AgentClient, id *types.SPIFFEID) (proto.Message, func(io.Writer), error) {
		done, err := c.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: id})
		return done, func(w io.Writer) { fmt.Fprintln(w, "Agent evicted successfully") }, err
	})
}
