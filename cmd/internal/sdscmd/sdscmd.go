// Package sdscmd owns the command line of the SDS server: run, and bootstrap, which writes a configuration for Envoy. It
// links no other role.
package sdscmd

import (
	"log/slog"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/sds"
)

// What the role is, in a line and in a sentence.
const (
	Short = "SPIFFE identities for Envoy, from any Workload API"
	Long  = "SDS hands SPIFFE identities to Envoy, from any Workload API."
)

// Fill gives cmd, the program itself or its "sds", the verbs.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	cmd.AddCommand(runVerb(env), bootstrapVerb(env))
	return cmd
}

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Serve this process's SVIDs to Envoy over SDS, from any Workload API",
		Long: `Serve this process's SVIDs to Envoy over SDS v3, from any Workload API: Lanyard's, SPIRE's, another.

Lanyard's and SPIRE's agents serve SDS themselves, and tell their callers apart: use this where Envoy can't reach the
agent's socket. Whoever may connect to this one gets this process's private key: its own user, and those of -allowUID.`,
		Example:               "  lanyard sds run -socketPath /run/envoy/sds.sock -allowUID 101",
		DisableFlagsInUseLine: true,
	}
	var cfg sds.Config
	var logs cli.LogFlags
	var uids cli.Strings
	fs := cmd.Flags()
	fs.SortFlags = false
	socket := ""
	if p, err := env.DefaultPaths(); err == nil {
		socket = p.SDSSocket()
	}
	fs.StringVar(&cfg.SocketPath, "socketPath", socket, "`PATH` to serve SDS on")
	fs.StringVar(&cfg.WorkloadAPIAddr, "workloadAPI", "", "`ADDR` of the Workload API: unix:///PATH or tcp://IP:PORT (default $SPIFFE_ENDPOINT_SOCKET, else unix://"+env.WorkloadSocket()+")")
	fs.Var(&uids, "allowUID", "user `ID` that may connect besides this process's own; may be given more than once")
	addNames(fs, &cfg.Options)
	logs.Add(fs)
	cli.Alias(fs, "socketPath", "listen") // the sidecar's names of the same
	cli.Alias(fs, "workloadAPI", "use-workload-api-addr")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := configure(env, &cfg, uids, &logs); err != nil {
			return err
		}
		return cli.WithLog(logs.Config, env.Stdout, func(log *slog.Logger) error {
			ctx, stop := run.Signals(cmd.Context(), env.Stderr, env.Exit)
			defer stop()
			cfg.Log = log
			cfg.Ready = func(at net.Addr) { log.Info("sds is ready", "socket", at.String()) }
			return sds.Run(ctx, cfg)
		})
	}
	return cmd
}

func addNames(fs *pflag.FlagSet, o *sds.Options) {
	fs.StringVar(&o.SVIDName, "defaultSVIDName", sds.DefaultSVIDName, "`NAME` of the secret that is the first SVID")
	fs.StringVar(&o.BundleName, "defaultBundleName", sds.DefaultBundleName, "`NAME` of the secret that is the own trust domain's bundle")
	fs.StringVar(&o.AllBundlesName, "defaultAllBundlesName", sds.DefaultAllBundlesName, "`NAME` of the secret that is all bundles")
	fs.BoolVar(&o.DisableSPIFFECertValidation, "disableSPIFFECertValidation", false, "serve bundles as plain trusted_ca, for Envoys without SPIFFE's validator")
}

// configure fills cfg in from the flags, and checks it.
func configure(env *cli.Env, cfg *sds.Config, uids []string, logs *cli.LogFlags) error {
	if err := logs.Check(); err != nil {
		return err
	}
	for _, s := range uids {
		uid, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return cli.Usagef("-allowUID %q: want the number of a user, as \"id -u\" shows it", s)
		}
		cfg.AllowedUIDs = append(cfg.AllowedUIDs, int(uid))
	}
	if cfg.WorkloadAPIAddr == "" && env.Getenv("SPIFFE_ENDPOINT_SOCKET") == "" {
		cfg.WorkloadAPIAddr = "unix://" + env.WorkloadSocket()
	}
	cfg.SocketPath = cli.TrimUnix(cfg.SocketPath)
	if err := cfg.Validate(); err != nil {
		return cli.Usagef("%v", err)
	}
	return nil
}
