// Package agentcmd owns the command line of the node agent: run and validate, their flags and configuration file, beside the
// verbs that talk to a running one. It joins the agent with the SDS it serves and links no other role.
package agentcmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/agentcli"
)

// What the role is, in a line and in a sentence.
const (
	Short = "Run the node agent, and use it: fetch and watch identities"
	Long  = "The node agent gives the processes on its machine their SPIFFE identities, by what the kernel says they are."
)

// Fill gives cmd, the program itself or its "agent", the agent's verbs.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	cmd.AddCommand(runVerb(env), validateVerb(env), cli.SampleVerb(env, configs.Agent))
	cmd.AddCommand(agentcli.Verbs(env)...)
	return cli.ExitLikeSPIRE(cmd)
}

func validateVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "validate [flags]",
		Short:                 "Check a configuration as run would, and start nothing",
		Example:               "  lanyard agent validate -config agent.hcl",
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(cmd.Context(), env)
		if err != nil {
			return err
		}
		for _, note := range s.process.Notes {
			fmt.Fprintln(env.Stderr, "Note: "+note)
		}
		if env.Dialect.SPIRE() {
			fmt.Fprintln(env.Stdout, "SPIRE agent configuration file is valid.")
			return nil
		}
		fmt.Fprintln(env.Stdout, "Agent configuration is valid.")
		return nil
	}
	return cmd
}
