package agentcmd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
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
		return advise(env, s.run(ctx, env.Stdout))
	}
	return cmd
}

// advise adds what can be done about the usual obstacles to a start.
func advise(env *cli.Env, err error) error {
	const dirs = "-dataDir and -socketPath"
	if env.Dialect.SPIRE() {
		return cli.Advise(err, dirs)
	}
	if errors.Is(err, durable.ErrLocked) {
		return cli.Hint(err, "stop that process, take its place with -takeOver, or keep them apart with %s", dirs)
	}
	if _, ok := errors.AsType[*unixsock.InUseError](err); ok {
		return cli.Hint(err, "if it is the agent of this data directory, -takeOver takes its place, and no workload notices")
	}
	return cli.Advise(err, dirs)
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
	ready := cfg.Ready
	cfg.Ready = func(at nodeagent.Addrs) {
		tellAddrs(log, at)
		if ready != nil {
			ready(at)
		}
	}
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

// tellAddrs logs where else the agent is reached: ports may be chosen by the kernel.
func tellAddrs(log *slog.Logger, at nodeagent.Addrs) {
	var attrs []any
	for _, l := range []struct {
		name string
		addr net.Addr
	}{{"admin_socket", at.AdminSocket}, {"metrics", at.Metrics}, {"health_checks", at.Health}} {
		if l.addr != nil {
			attrs = append(attrs, l.name, l.addr.String())
		}
	}
	if len(attrs) > 0 {
		log.Info("agent listens for its operator", attrs...)
	}
}
