// Package sidecarcmd owns the command line of the sidecar, which is ghostunnel's. It links no other role.
package sidecarcmd

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/sidecar"
)

// What the role is, in a line and in a sentence.
const (
	Short = "Mutual TLS for a program that knows nothing about it"
	Long  = "The sidecar speaks mutual TLS with SPIFFE identities for a program beside it that knows nothing about either."
)

// Fill gives cmd, the program itself or its "sidecar", the verbs server and client. Their common flags may stand before the
// verb, as in ghostunnel.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	f := &flags{env: env}
	f.addCommon(cmd.PersistentFlags())
	cmd.AddCommand(cli.Kingpin(f.server()), cli.Kingpin(f.client()))
	cli.NotYetFlags(cmd, "ghostunnel", "keystore", "cert", "key", "storepass", "cacert", "use-workload-api-timeout", "pkcs11-module",
		"pkcs11-token-label", "pkcs11-pin", "keychain-identity", "keychain-issuer", "timed-reload", "close-timeout", "max-conn-lifetime",
		"max-concurrent-conns", "metrics-graphite", "metrics-url", "metrics-prefix", "metrics-interval", "enable-pprof", "enable-shutdown",
		"quiet", "skip-resolve", "syslog", "disable-landlock")
	return cli.ExitLikeSPIRE(cli.Kingpin(cmd))
}

// flags are those of both verbs, named as ghostunnel names them.
type flags struct {
	env            *cli.Env
	cfg            sidecar.Config
	logs           cli.LogFlags
	useWorkloadAPI bool
	spiffeID       string
	allow, verify  cli.Strings
	shutdown, dial time.Duration
}

func (f *flags) addCommon(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.BoolVar(&f.useWorkloadAPI, "use-workload-api", false, "take identity and bundles from the SPIFFE Workload API at $SPIFFE_ENDPOINT_SOCKET, else the agent of this machine")
	fs.StringVar(&f.cfg.WorkloadAPIAddr, "use-workload-api-addr", "", "the same, from this `ADDR`: unix:///PATH or tcp://IP:PORT")
	fs.StringVar(&f.spiffeID, "spiffe-id", "", "which SPIFFE `ID` to be, where several are offered (default the first)")
	fs.StringVar(&f.cfg.Status, "status", "", "serve health over plain HTTP on `ADDR`: [http://]HOST:PORT or unix:PATH (default none)")
	fs.DurationVar(&f.shutdown, "shutdown-timeout", sidecar.DefaultShutdownTimeout, "how long open connections may go on after SIGTERM; exit 1 if some had to be cut")
	fs.DurationVar(&f.dial, "connect-timeout", sidecar.DefaultConnectTimeout, "limit for identity, handshake and dial of a connection together")
	f.logs.AddDashed(fs)
}

func (f *flags) server() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server --listen ADDR --target ADDR --allow-uri URI|--allow-all [flags]",
		Short: "Take mutual TLS in, send plaintext to a program",
		Long: `Take mutual TLS in, and send plaintext to a program beside.

It listens at once; connections that come before there is an identity wait for it, up to --connect-timeout. A rotated
identity serves new connections and drops none.`,
		Example:               "  lanyard sidecar server --listen :8443 --target 127.0.0.1:8080 --use-workload-api --allow-uri 'spiffe://example.org/web'",
		DisableFlagsInUseLine: true,
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.cfg.Listen, "listen", "", "`ADDR` to take mutual TLS on: HOST:PORT or unix:PATH (required)")
	fs.StringVar(&f.cfg.Target, "target", "", "`ADDR` of the program: HOST:PORT or unix:PATH (required)")
	fs.Var(&f.allow, "allow-uri", "SPIFFE `ID` that may connect; * stands for one segment of its path, ** at the end for all below; may be given more than once")
	fs.BoolVar(&f.cfg.AllowAll, "allow-all", false, "let every peer in that a bundle vouches for; conflicts with --allow-uri")
	fs.BoolVar(&f.cfg.UnsafeTarget, "unsafe-target", false, "let --target be another machine: plaintext leaves this one")
	cli.Alias(fs, "allow-uri", "allow-uri-san")
	cli.NotYetFlags(cmd, "ghostunnel", "target-status", "proxy-protocol", "proxy-protocol-mode", "allow-cn", "allow-ou", "allow-dns", "allow-dns-san",
		"allow-ip", "allow-ip-san", "allow-spki-pin", "allow-policy", "allow-query", "disable-authentication", "auto-acme-cert", "auto-acme-email",
		"auto-acme-agree-to-tos", "auto-acme-ca", "auto-acme-testca")
	cmd.RunE = func(*cobra.Command, []string) error { return f.run(cmd, sidecar.Server) }
	return cmd
}

func (f *flags) client() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client --listen ADDR --target HOST:PORT [flags]",
		Short: "Take plaintext in from a program, send mutual TLS",
		Long: `Take plaintext in from a program beside, and send mutual TLS.

Without --verify-uri the server must be of this sidecar's own trust domain; a host name is never checked.`,
		Example:               "  lanyard sidecar client --listen 127.0.0.1:8080 --target db:8443 --use-workload-api --verify-uri 'spiffe://example.org/db'",
		DisableFlagsInUseLine: true,
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.cfg.Listen, "listen", "", "`ADDR` to take plaintext on: HOST:PORT or unix:PATH (required)")
	fs.StringVar(&f.cfg.Target, "target", "", "`HOST:PORT` to send mutual TLS to (required)")
	fs.Var(&f.verify, "verify-uri", "SPIFFE `ID` the server may have; wildcards as in --allow-uri; may be given more than once (default any of the own trust domain)")
	fs.BoolVar(&f.cfg.UnsafeListen, "unsafe-listen", false, "let --listen be reached from other machines: they use this identity")
	cli.Alias(fs, "verify-uri", "verify-uri-san")
	cli.NotYetFlags(cmd, "ghostunnel", "override-server-name", "proxy", "connect-proxy", "verify-cn", "verify-ou", "verify-dns", "verify-dns-san", "verify-ip",
		"verify-ip-san", "verify-spki-pin", "verify-policy", "verify-query", "disable-authentication")
	cmd.RunE = func(*cobra.Command, []string) error { return f.run(cmd, sidecar.Client) }
	return cmd
}

// config gives what the flags describe.
func (f *flags) config(mode sidecar.Mode) (sidecar.Config, error) {
	cfg := f.cfg
	cfg.Mode, cfg.AllowURIs, cfg.VerifyURIs = mode, f.allow, f.verify
	if f.spiffeID != "" {
		id, err := spiffeid.FromString(f.spiffeID)
		if err != nil {
			return cfg, cli.Usagef("--spiffe-id %q is no SPIFFE ID: %v", f.spiffeID, err)
		}
		cfg.SPIFFEID = id
	}
	if f.dial <= 0 { // zero is the default in a Config
		return cfg, cli.Usagef("--connect-timeout %s: must be more than 0", f.dial)
	}
	cfg.ConnectTimeout = f.dial
	cfg.ShutdownTimeout = f.shutdown
	if f.shutdown == 0 {
		cfg.ShutdownTimeout = time.Nanosecond // at once
	}
	if cfg.WorkloadAPIAddr == "" && f.useWorkloadAPI && f.env.Getenv("SPIFFE_ENDPOINT_SOCKET") == "" {
		cfg.WorkloadAPIAddr = "unix://" + f.env.WorkloadSocket()
	}
	return cfg, cfg.Validate()
}

func (f *flags) run(cmd *cobra.Command, mode sidecar.Mode) error {
	if err := f.logs.Check(); err != nil {
		return err
	}
	cfg, err := f.config(mode)
	if err != nil {
		return err
	}
	return cli.WithLog(f.logs.Config, f.env.Stdout, func(log *slog.Logger) error {
		ctx, stop := run.Signals(cmd.Context(), f.env.Stderr, f.env.Exit)
		defer stop()
		cfg.Log = log
		return sidecar.Run(ctx, cfg)
	})
}
