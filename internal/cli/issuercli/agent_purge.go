package issuercli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// purged is the answer of agent purge; the names are SPIRE's.
type purged struct {
	Agents []purgedAgent `json:"expired_agents"`
}

type purgedAgent struct {
	ID      string `json:"agent_id"`
	Deleted bool   `json:"deleted"`
	Error   string `json:"error,omitempty"`
	id      *types.SPIFFEID
}

func agentPurge(env *cli.Env) *cobra.Command {
	v := newVerb(env, "purge", "Forget agents whose SVID expired long ago and that can join again by themselves").withOutput()
	v.Example = "  lanyard issuer agent purge -expiredFor 168h -dryRun"
	old := 30 * 24 * time.Hour
	var dryRun bool
	v.Flags().DurationVar(&old, "expiredFor", old, "how long ago the SVID must have expired")
	v.Flags().BoolVar(&dryRun, "dryRun", false, "only say which agents would go")
	v.RunE = func(*cobra.Command, []string) error {
		if old < 0 {
			return cli.Usagef("-expiredFor %v: want 0 or more", old)
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			client := agentv1.NewAgentClient(cc)
			found, err := expiredAgents(ctx, client, time.Now().Add(-old))
			if err != nil {
				return err
			}
			failed := 0
			for i := range found.Agents {
				a := &found.Agents[i]
				if dryRun {
					continue
				}
				if _, err := client.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: a.id}); err != nil {
					a.Error = err.Error()
					failed++
					continue
				}
				a.Deleted = true
			}
			if err := v.out.Struct(env.Stdout, found, func(w io.Writer) { found.print(w, dryRun) }); err != nil || failed == 0 || env.Dialect == cli.SPIREServer {
				return err // spire-server's exit code is 0 even where some stayed
			}
			return fmt.Errorf("%s could not be purged", cli.Count(failed, "agent", "agents"))
		})
	}
	return v.Command
}

// expiredAgents gives the agents that can re-attest and whose SVID expired before limit.
func expiredAgents(ctx context.Context, client agentv1.AgentClient, limit time.Time) (*purged, error) {
	found := &purged{Agents: []purgedAgent{}}
	for token := ""; ; {
		page, err := client.ListAgents(ctx, &agentv1.ListAgentsRequest{
			PageSize: batchSize, PageToken: token, OutputMask: &types.AgentMask{X509SvidExpiresAt: true},
			Filter: &agentv1.ListAgentsRequest_Filter{ByCanReattest: wrapperspb.Bool(true)},
		})
		if err != nil {
			return nil, err
		}
		for _, a := range page.Agents {
			if time.Unix(a.X509SvidExpiresAt, 0).Before(limit) {
				found.Agents = append(found.Agents, purgedAgent{ID: idString(a.Id), id: a.Id})
			}
		}
		if token = page.NextPageToken; token == "" {
			return found, nil
		}
	}
}

func (p *purged) print(w io.Writer, dryRun bool) {
	if len(p.Agents) == 0 {
		fmt.Fprintln(w, "No agents to purge.")
		return
	}
	fmt.Fprintf(w, "Found %d expired %s\n\n", len(p.Agents), map[bool]string{true: "agent", false: "agents"}[len(p.Agents) == 1])
	if dryRun {
		fmt.Fprint(w, "\nAgents that can be purged:\n")
	}
	p.printSome(w, "Agents purged:\n", func(a purgedAgent) bool { return a.Deleted })
	heading := "Agents not purged:\n"
	if dryRun {
		heading = ""
	}
	p.printSome(w, heading, func(a purgedAgent) bool { return !a.Deleted })
}

func (p *purged) printSome(w io.Writer, heading string, want func(purgedAgent) bool) {
	for _, a := range p.Agents {
		if !want(a) {
			continue
		}
		fmt.Fprintf(w, "%sSPIFFE ID         : %s\n", heading, a.ID)
		heading = ""
		if a.Error != "" {
			fmt.Fprintf(w, "Error             : %s\n", a.Error)
		}
	}
}
