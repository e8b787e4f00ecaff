// Package issuercmd owns the command line of the issuer: run and validate, their flags and configuration file, beside the
// verbs that talk to a running one. It links no other role.
package issuercmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/issuercli"
)

// What the role is, in a line and in a sentence.
const (
	Short = "Run the issuer, and manage it: entries, join tokens, agents"
	Long  = "The issuer of a trust domain: its authority, and its registry of who gets which identity."
)

// Fill gives cmd, the program itself or its "issuer", the issuer's verbs.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	cmd.AddCommand(runVerb(env), validateVerb(env), restoreVerb(env), cli.SampleVerb(env, configs.Issuer))
	cmd.AddCommand(issuercli.Verbs(env)...)
	return cli.ExitLikeSPIRE(cmd)
}

func validateVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "validate [flags]",
		Short:                 "Check a configuration as run would, and start nothing",
		Example:               "  lanyard issuer validate -config issuer.hcl",
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(cmd.Context(), env)
		if err != nil {
			return err
		}
		for _, note := range s.process.Notes {
			fmt.Fprintln(env.Stderr, "Note: "+note)
		}
		if env.Dialect.SPIRE() {
			fmt.Fprintln(env.Stdout, "SPIRE server configuration file is valid.")
			return nil
		}
		fmt.Fprintln(env.Stdout, "Issuer configuration is valid.")
		return nil
	}
	return cmd
}
