package issuercli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// expiryLayout is how SPIRE writes a time in -expiresBefore.
const expiryLayout = "2006-01-02 15:04:05 -0700 -07"

// agentFilter are the flags that choose agents.
type agentFilter struct {
	attestation, expiresBefore string
	selectors                  cli.Strings
	on, banned, canReattest    cli.Choice
}

func (f *agentFilter) add(fs *pflag.FlagSet) {
	f.banned = cli.Choice{Value: "all", Accepts: []string{"true", "false", "all"}}
	f.canReattest = f.banned
	fs.StringVar(&f.attestation, "attestationType", "", "only agents that joined by this `METHOD`, like join_token")
	fs.Var(&f.banned, "banned", "only agents that are banned, or are not")
	fs.Var(&f.canReattest, "canReattest", "only agents that can join again by themselves, or can't")
	fs.StringVar(&f.expiresBefore, "expiresBefore", "", "only agents whose SVID expires before this `TIME`, like 2030-01-31T00:00:00Z or \""+expiryLayout+"\"")
	fs.Var(&f.selectors, "selector", "only agents by their `TYPE:VALUE` selectors, see -matchSelectorsOn; may be given more than once")
	matchFlag(fs, &f.on, "matchSelectorsOn", "selector")
}

// proto gives the filter as the API has it.
func (f *agentFilter) proto() (*agentv1.ListAgentsRequest_Filter, error) {
	expires := f.expiresBefore
	if t, err := time.Parse(time.RFC3339, expires); err == nil {
		expires = t.Format(expiryLayout)
	}
	if _, err := time.Parse(expiryLayout, expires); expires != "" && err != nil {
		return nil, cli.Usagef("-expiresBefore %q: write the time like \"2030-01-31T00:00:00Z\" or %q", f.expiresBefore, expiryLayout)
	}
	match, err := selectorMatch(f.selectors, f.on)
	return &agentv1.ListAgentsRequest_Filter{
		ByAttestationType: f.attestation, BySelectorMatch: match, ByExpiresBefore: expires,
		ByBanned: triState(f.banned), ByCanReattest: triState(f.canReattest),
	}, err
}

func triState(c cli.Choice) *wrapperspb.BoolValue {
	if c.Value == "all" {
		return nil
	}
	return wrapperspb.Bool(c.Value == "true")
}

func agentList(env *cli.Env) *cobra.Command {
	v := newVerb(env, "list", "List node agents, all or some").withOutput()
	var f agentFilter
	f.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		filter, err := f.proto()
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp := &agentv1.ListAgentsResponse{}
			for token := ""; ; {
				page, err := agentv1.NewAgentClient(cc).ListAgents(ctx, &agentv1.ListAgentsRequest{PageSize: batchSize, PageToken: token, Filter: filter})
				if err != nil {
					return err
				}
				resp.Agents = append(resp.Agents, page.Agents...)
				if token = page.NextPageToken; token == "" {
					break
				}
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) { printAgents(w, resp.Agents) })
		})
	}
	return v.Command
}

func agentCount(env *cli.Env) *cobra.Command {
	v := newVerb(env, "count", "Count node agents, all or some").withOutput()
	var f agentFilter
	f.add(v.Flags())
	v.RunE = func(*cobra.Command, []string) error {
		filter, err := f.proto()
		if err != nil {
			return err
		}
		return v.call(func(ctx context.Context, cc *grpc.ClientConn) error {
			resp, err := agentv1.NewAgentClient(cc).CountAgents(ctx, &agentv1.CountAgentsRequest{Filter: &agentv1.CountAgentsRequest_Filter{
				ByAttestationType: filter.ByAttestationType, BySelectorMatch: filter.BySelectorMatch, ByExpiresBefore: filter.ByExpiresBefore,
				ByBanned: filter.ByBanned, ByCanReattest: filter.ByCanReattest,
			}})
			if err != nil {
				return err
			}
			return v.out.Proto(env.Stdout, resp, func(w io.Writer) {
				fmt.Fprintln(w, cli.Count(int(resp.Count), "attested agent", "attested agents"))
			})
		})
	}
	return v.Command
}

func printAgents(w io.Writer, agents []*types.Agent) {
	if len(agents) == 0 {
		fmt.Fprintln(w, "No attested agents found")
		return
	}
	fmt.Fprintf(w, "Found %s:\n\n", cli.Count(len(agents), "attested agent", "attested agents"))
	for _, a := range agents {
		printAgent(w, a)
	}
}

// printAgent writes SPIRE's block for an agent.
func printAgent(w io.Writer, a *types.Agent) {
	fmt.Fprintf(w, "SPIFFE ID         : %s\n", idString(a.Id))
	fmt.Fprintf(w, "Attestation type  : %s\n", a.AttestationType)
	fmt.Fprintf(w, "Expiration time   : %s\n", time.Unix(a.X509SvidExpiresAt, 0))
	if a.Banned { // and has no serial number any more
		fmt.Fprintf(w, "Banned            : %t\n", a.Banned)
	} else {
		fmt.Fprintf(w, "Serial number     : %s\n", a.X509SvidSerialNumber)
	}
	fmt.Fprintf(w, "Can re-attest     : %t\n", a.CanReattest)
	if a.AgentVersion != "" {
		fmt.Fprintf(w, "Agent version     : %s\n", a.AgentVersion)
	}
	fmt.Fprintln(w)
}
