package issuercmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
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

// run runs an issuer and what goes with its process: log and profiles.
func (s settings) run(ctx context.Context, stdout io.Writer) (err error) {
	var level slog.LevelVar
	s.log.Var = &level
	s.issuer.Level = &level
	log, closer, err := telemetry.Open(s.log, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	for _, note := range s.notes {
		log.Warn(note)
	}
	ctx, end := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer end()
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(usr)
	beside.Go(func() { onSignals(ctx, usr, closer, log) })
	beside.Go(func() { s.profiling.serve(ctx, log) })
	return Serve(ctx, s.issuer, log, nil)
}

// onSignals does what SPIRE's server does on signals that don't end it.
func onSignals(ctx context.Context, signals <-chan os.Signal, closer io.Closer, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			file, inFile := closer.(*telemetry.File)
			switch {
			case sig == syscall.SIGUSR1:
				log.Info("SIGUSR1 prints no metrics and reads no file again: scrape telemetry { Prometheus { … } }, and restart to change settings")
			case !inFile:
				log.Info("SIGUSR2 reopens the log file, and there is none")
			default:
				if err := file.Reopen(); err != nil {
					log.Error("the log file can't be opened again; going on in the old one", "error", err)
					continue
				}
				log.Info("reopened the log file")
			}
		}
	}
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
