// Package agentcmd owns the command line of the node agent: run and validate, their flags and configuration file, beside the
// verbs that talk to a running one. It joins the agent with the SDS it serves and links no other role.
package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/agentcli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/sds"
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
	return cli.NotYet(cli.ExitLikeSPIRE(cmd), "logger", "debug")
}

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Run the node agent until it is told to stop",
		Long: `Run the node agent: it joins the issuer, and gives the processes on this machine their identities over the SPIFFE
Workload API and, for Envoy, SDS.

The first start needs a join token ("lanyard issuer token generate") and the issuer's bundle ("lanyard issuer bundle
show"); later ones go by the key and SVID in the data directory. Flags override the file; "lanyard agent sample" prints one
to start from. The first SIGINT or SIGTERM stops it in order, a second one at once.`,
		Example: `  lanyard agent run -serverAddress issuer.example.org -trustDomain example.org -trustBundle bundle.pem -joinTokenFile token
  lanyard agent run -config agent.hcl`,
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(env)
		if err != nil {
			return err
		}
		return cli.WithLog(s.log, env.Stdout, func(log *slog.Logger) error {
			ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
			defer stop()
			return cli.Advise(Serve(ctx, s.agent, s.sds, log), "-dataDir and -socketPath")
		})
	}
	return cmd
}

// Serve runs an agent with SDS on its Workload API socket, and logs its start and end.
func Serve(ctx context.Context, cfg nodeagent.Config, secrets sds.Options, log *slog.Logger) error {
	cfg.Log, secrets.Log = log, log
	cfg.Services = append(cfg.Services, func(reg grpc.ServiceRegistrar, src nodeagent.X509Source) { sds.Register(reg, src, secrets) })
	if err := nodeagent.Run(ctx, cfg); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("agent stopped")
	return nil
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
		if _, err := f.settings(env); err != nil {
			return err
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
