// Package sidecarcmd owns the command lines of the sidecar: server and client, which are ghostunnel's, and run, validate and
// explain, which go by a file. It brings the libraries that a build may leave out. It links no other role.
package sidecarcmd

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/pkcs11"
)

// What the role is, in a line and in a sentence.
const (
	Short = "Mutual TLS for a program that knows nothing about it"
	Long  = "The sidecar speaks mutual TLS with SPIFFE identities for a program beside it that knows nothing about either."
)

// Fill gives cmd, the program itself or its "sidecar", the sidecar's verbs. Under ghostunnel's name there are its two only.
func Fill(env *cli.Env, cmd *cobra.Command) *cobra.Command {
	server, serverFlags := proxyVerb(env, sidecar.Server)
	client, clientFlags := proxyVerb(env, sidecar.Client)
	flags := map[string][]flag{"server": serverFlags, "client": clientFlags}
	cmd.AddCommand(server, client, manualVerb(env, flags))
	addGlobals(env, cmd)
	if env.Dialect == cli.Ghostunnel {
		version, _, _ := strings.Cut(cli.Version(), ", "+runtime.Version())
		cmd.Version = fmt.Sprintf("rev %s built with %s (pkcs11: %v, keychain: false)", version, runtime.Version(), pkcs11.Opener() != nil)
		if v, _, err := cmd.Find([]string{"version"}); err == nil && v != cmd {
			cmd.RemoveCommand(v)
		}
		ghostunnelHelp(cmd, flags)
		return cli.ExitLikeSPIRE(cli.Kingpin(cmd))
	}
	for _, own := range []*cobra.Command{runVerb(env), validateVerb(env), explainVerb(env), cli.SampleVerb(env, configs.Sidecar)} {
		cmd.AddCommand(cli.ExitLikeLanyard(own))
	}
	cmd.Example = `  lanyard sidecar server --listen :8443 --target 127.0.0.1:8080 --use-workload-api --allow-uri 'spiffe://example.org/web'
  lanyard sidecar client --listen 127.0.0.1:8080 --target db:8443 --use-workload-api --verify-uri 'spiffe://example.org/db'
  lanyard sidecar sample > sidecar.hcl; lanyard sidecar run -config sidecar.hcl`
	return cli.ExitLikeSPIRE(cli.Kingpin(cmd))
}

// addGlobals lets cmd know the flags that may stand before server and client, so that a line can be read from left to right. The
// verb gets their values.
func addGlobals(env *cli.Env, cmd *cobra.Command) {
	o := newOptions(env)
	o.add(cmd.Flags(), o.commonFlags())
	cmd.Flags().VisitAll(hide)
}

// manualVerb prints the manual page that --help-man asks for.
func manualVerb(env *cli.Env, flags map[string][]flag) *cobra.Command {
	return &cobra.Command{Use: cli.ManualVerb, Hidden: true, Short: "Print a manual page", RunE: func(cmd *cobra.Command, _ []string) error {
		writeManual(env.Stdout, cmd.Root().Name(), flags)
		return nil
	}}
}
