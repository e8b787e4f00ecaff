// Package issuercmd owns the command line of the issuer: run and validate, their flags and configuration file, beside the
// verbs that talk to a running one. It links no other role.
package issuercmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/issuercli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/issuer"
)

// What the role is, in a line and in a sentence.
const (
	Short = "Run the issuer, and manage it: entries, join tokens, agents"
	Long  = "The issuer of a trust domain: its authority, and its registry of who gets which identity."
)

// Fill gives cmd, the program itself or its "issuer", the issuer's verbs.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	cmd.AddCommand(runVerb(env), validateVerb(env), cli.SampleVerb(env, configs.Issuer))
	cmd.AddCommand(issuercli.Verbs(env)...)
	return cli.NotYet(cli.ExitLikeSPIRE(cmd), "federation", "jwt", "wit", "logger", "localauthority", "upstreamauthority", "debug")
}

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Run the issuer until it is told to stop",
		Long: `Run the issuer: the authority of a trust domain, and its registry of who gets which identity.

Without -config it serves trust domain ` + cli.DefaultTrustDomain + ` on this machine alone.
Flags override the file; "lanyard issuer sample" prints one to start from. The first SIGINT or SIGTERM stops it in order, a
second one at once.`,
		Example: `  lanyard issuer run
  lanyard issuer run -config issuer.hcl -logLevel debug`,
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(env)
		if err != nil {
			return err
		}
		return cli.WithLog(s.log, env.Stdout, func(log *slog.Logger) error {
			ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
			defer stop()
			return cli.Advise(Serve(ctx, s.issuer, log, nil), "-dataDir and -socketPath")
		})
	}
	return cmd
}

// Serve runs an issuer and logs its start and end. ready may be nil.
func Serve(ctx context.Context, cfg issuer.Config, log *slog.Logger, ready func(issuer.Addrs)) error {
	cfg.Log = log
	cfg.Ready = func(at issuer.Addrs) {
		log.Info("issuer is ready", "trust_domain", cfg.TrustDomain.Name(), "address", at.TCP.String(), "socket", at.Socket)
		if ready != nil {
			ready(at)
		}
	}
	err := issuer.Run(ctx, cfg)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("issuer stopped")
	return nil
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
		if _, err := f.settings(env); err != nil {
			return err
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
