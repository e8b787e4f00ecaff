package issuercmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/issuer/backup"
)

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Run the issuer until it is told to stop",
		Long: `Run the issuer: the authority of a trust domain, and its registry of who gets which identity.

Without -config it serves trust domain ` + cli.DefaultTrustDomain + ` on this machine alone.
Flags override the file, which may be a spire-server's; "lanyard issuer sample" prints one to start from. The first SIGINT or
SIGTERM stops it in order, a second one at once. SIGUSR2 has it go on in a new log file, where the old one was moved away.`,
		Example: `  lanyard issuer run
  lanyard issuer run -config issuer.hcl -logLevel debug`,
		DisableFlagsInUseLine: true,
	}
	var f flags
	f.add(env, cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings(cmd.Context(), env)
		if err != nil {
			return err
		}
		if err := backup.CheckWhole(s.issuer.DataDir); err != nil {
			return cli.Advise(err, "-dataDir and -socketPath")
		}
		ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
		defer stop()
		return cli.Advise(s.run(ctx, env.Stdout), "-dataDir and -socketPath")
	}
	return cmd
}

// run runs an issuer and what goes with its process.
func (s settings) run(ctx context.Context, stdout io.Writer) error {
	return s.process.Run(ctx, stdout, func(ctx context.Context, log *slog.Logger, level *slog.LevelVar) error {
		s.issuer.Level = level
		return Serve(ctx, s.issuer, log, nil)
	})
}

// Serve runs an issuer and logs its start and end. ready may be nil.
func Serve(ctx context.Context, cfg issuer.Config, log *slog.Logger, ready func(issuer.Addrs)) error {
	cfg.Log = log
	cfg.Ready = func(at issuer.Addrs) {
		attrs := []any{"trust_domain", cfg.TrustDomain.Name(), "address", at.TCP.String(), "socket", at.Socket}
		for _, l := range []struct {
			name string
			addr fmt.Stringer
		}{{"metrics", at.Metrics}, {"health_checks", at.Health}, {"oidc", at.OIDC}} {
			if l.addr != nil {
				attrs = append(attrs, l.name, l.addr.String())
			}
		}
		log.Info("issuer is ready", attrs...)
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
