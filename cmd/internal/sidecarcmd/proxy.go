package sidecarcmd

import (
	"context"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/notify"
)

const (
	ownHint    = `For more than one tunnel, and rules that change while it runs, see "lanyard sidecar run -h".`
	serverLong = `Take mutual TLS in, and send plaintext to a program beside.

It listens at once; connections that come before there is an identity wait for it, up to --connect-timeout. A rotated
identity serves new connections and drops none. SIGHUP and SIGUSR1 read certificate, CA and policy files again; SIGTERM
and SIGINT let connections end, up to --shutdown-timeout, and a second one ends it at once.`
	serverExample = `  lanyard sidecar server --listen :8443 --target 127.0.0.1:8080 --use-workload-api --allow-uri 'spiffe://example.org/web'
  lanyard sidecar server --listen :8443 --target unix:app.sock --cert srv.pem --key srv-key.pem --cacert ca.pem --allow-dns client.example.org`
	clientLong = `Take plaintext in from a program beside, and send mutual TLS.

With SVIDs the server is known by its SPIFFE ID, and a host name is never checked: without --verify-uri it must be of this
sidecar's own trust domain. With certificate files its chain and host name are verified, and --verify-… come on top.
SIGHUP and SIGUSR1 read certificate, CA and policy files again; SIGTERM and SIGINT let connections end, up to
--shutdown-timeout, and a second one ends it at once.`
	clientExample = `  lanyard sidecar client --listen 127.0.0.1:8080 --target db:8443 --use-workload-api --verify-uri 'spiffe://example.org/db'
  lanyard sidecar client --listen unix:db.sock --target db.example.org:8443 --cert me.pem --key me-key.pem --cacert ca.pem`
)

// proxyVerb is server or client: one tunnel, by a command line that is ghostunnel's.
func proxyVerb(env *cli.Env, mode sidecar.Mode) (*cobra.Command, []flag) {
	o := newOptions(env)
	cmd := &cobra.Command{DisableFlagsInUseLine: true}
	var flags []flag
	if mode == sidecar.Server {
		flags = o.serverFlags()
		cmd.Use = "server --listen ADDR --target ADDR [flags]"
		cmd.Short = "Take mutual TLS in, send plaintext to a program"
		cmd.Long, cmd.Example = serverLong, serverExample
	} else {
		flags = o.clientFlags()
		cmd.Use = "client --listen ADDR --target HOST:PORT [flags]"
		cmd.Short = "Take plaintext in from a program, send mutual TLS"
		cmd.Long, cmd.Example = clientLong, clientExample
	}
	if env.Dialect != cli.Ghostunnel {
		cmd.Long += "\n\n" + ownHint
	}
	o.add(cmd.Flags(), flags)
	grouped(cmd, flags, env.Dialect != cli.Ghostunnel)
	cmd.RunE = func(*cobra.Command, []string) error { return o.run(cmd.Context(), mode, flags) }
	return cli.Kingpin(cmd), flags
}

// run carries the tunnel until a signal ends it.
func (o *options) run(ctx context.Context, mode sidecar.Mode, flags []flag) error {
	hangup, deaf := hangups()
	defer deaf()
	ctx, stop := run.Signals(ctx, o.env.Stderr, o.env.Exit)
	defer stop()
	if err := o.environment(flags); err != nil {
		return err
	}
	if err := o.logs.Check(); err != nil {
		return err
	}
	cfg, notes, err := o.config(mode)
	if err != nil {
		return o.inFlags(flags, err)
	}
	return o.withLog(func(log *slog.Logger) error {
		cfg.Log, cfg.Deps = log, parts(log, func(key string) string { return o.word(flags, key) })
		if cfg.Notify, err = notify.FromEnv(o.env.Getenv); err != nil {
			log.Warn(err.Error())
		}
		for _, note := range notes {
			log.Info(note)
		}
		files := func(s *sidecar.Sidecar) func(context.Context) error { return s.ReloadFiles }
		return o.inFlags(flags, serve(ctx, cfg, reloader{log: log, hangup: hangup, every: o.timedReload}, files))
	})
}

// withLog opens the log that the flags ask for.
func (o *options) withLog(f func(*slog.Logger) error) error {
	if slices.Contains(o.quiet.values, "all") {
		return f(slog.New(slog.DiscardHandler))
	}
	cfg := o.logs.Config
	if o.syslog {
		cfg.Syslog = syslogTag
	}
	return cli.WithLog(cfg, o.env.Stdout, f)
}

// syslogTag is the name that the system's log has for this program.
const syslogTag = "lanyard-sidecar"
