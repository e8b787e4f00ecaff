package agentcmd

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/sds"
)

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Run the node agent until it is told to stop",
		Long: `Run the node agent: it joins the issuer, and gives the processes on this machine their identities over the SPIFFE
Workload API and, for Envoy, SDS.

The first start needs a join token ("lanyard issuer token generate") and the issuer's bundle ("lanyard issuer bundle
show"); later ones go by the key and SVID in the data directory. Flags override the file, which may be a spire-agent's;
"lanyard agent sample" prints one to start from. The first SIGINT or SIGTERM stops it in order, a second one at once. SIGUSR2
has it go on in a new log file, where the old one was moved away.`,
		Example: `  lanyard agent run -serverAddress issuer.example.org -trustDomain example.org -trustBundle bundle.pem -joinTokenFile token
  lanyard agent run -config agent.hcl
  lanyard agent run -config agent.hcl -takeOver`,
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(cmd.Context(), env)
		if err != nil {
			return err
		}
		ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
		defer stop()
		return cli.Advise(s.run(ctx, env.Stdout), "-dataDir and -socketPath")
	}
	return cmd
}

// run runs an agent and what goes with its process.
func (s settings) run(ctx context.Context, stdout io.Writer) error {
	return s.process.Run(ctx, stdout, func(ctx context.Context, log *slog.Logger, level *slog.LevelVar) (err error) {
		s.agent.Level, s.agent.LaunchLevel = level, level.Level()
		for _, newPlugin := range s.attestors {
			plugin, pluginErr := newPlugin(log)
			if pluginErr != nil {
				return pluginErr
			}
			if closer, ok := plugin.(io.Closer); ok {
				defer func() { err = errors.Join(err, closer.Close()) }()
			}
			s.agent.WorkloadPlugins = append(s.agent.WorkloadPlugins, plugin)
		}
		return serve(ctx, s.agent, s.sds, log)
	})
}

// Serve runs an agent with SDS on its Workload API socket, and logs its start and end.
func Serve(ctx context.Context, cfg nodeagent.Config, secrets sds.Options, log *slog.Logger) error {
	return serve(ctx, cfg, &secrets, log)
}

func serve(ctx context.Context, cfg nodeagent.Config, secrets *sds.Options, log *slog.Logger) error {
	cfg.Log = log
	if secrets != nil {
		opts := *secrets
		opts.Log = log
		cfg.Services = append(cfg.Services, func(reg grpc.ServiceRegistrar, src nodeagent.X509Source) { sds.Register(reg, src, opts) })
	}
	if err := nodeagent.Run(ctx, cfg); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("agent stopped")
	return nil
}
