// Command lanyard is every role and every client verb in one binary. Called spire-server, spire-agent or ghostunnel, it
// answers to that tool's command line.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/cmd/internal/agentcmd"
	"github.com/lanyard-mtls/lanyard/cmd/internal/issuercmd"
	"github.com/lanyard-mtls/lanyard/cmd/internal/sdscmd"
	"github.com/lanyard-mtls/lanyard/cmd/internal/sidecarcmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func main() { os.Exit(lanyard()) }

// lanyard runs the command line of this process and gives its exit code.
func lanyard() int {
	env := cli.OSEnv(cli.DialectOf(filepath.Base(os.Args[0])), os.Exit)
	if env.Dialect == cli.Ghostunnel || len(os.Args) > 1 && os.Args[1] == "sidecar" {
		sidecarcmd.SurviveHangups()
	}
	return cli.Execute(context.Background(), env, root(env), os.Args[1:])
}

// root is the command line of the tool this process is called as.
func root(env *cli.Env) *cobra.Command {
	switch env.Dialect {
	case cli.SPIREServer:
		return issuercmd.Fill(env, cli.Root(env, "spire-server", issuercmd.Long+"\nThis is Lanyard, with spire-server's command line."))
	case cli.SPIREAgent:
		return agentcmd.Fill(env, cli.Root(env, "spire-agent", agentcmd.Long+"\nThis is Lanyard, with spire-agent's command line."))
	case cli.Ghostunnel:
		return sidecarcmd.Fill(env, cli.Root(env, "ghostunnel", sidecarcmd.Long+"\nThis is Lanyard, with ghostunnel's command line."))
	}
	root := cli.Root(env, "lanyard", long)
	role := func(name, short, long string, fill func(*cli.Env, *cobra.Command) *cobra.Command) {
		root.AddCommand(fill(env, &cobra.Command{Use: name, Short: short, Long: long}))
	}
	root.AddCommand(upVerb(env))
	role("issuer", issuercmd.Short, issuercmd.Long, issuercmd.Fill)
	role("agent", agentcmd.Short, agentcmd.Long, agentcmd.Fill)
	role("sidecar", sidecarcmd.Short, sidecarcmd.Long, sidecarcmd.Fill)
	role("sds", sdscmd.Short, sdscmd.Long, sdscmd.Fill)
	return root
}

const long = `Lanyard gives programs SPIFFE identities that rotate, and mutual TLS to programs that know nothing about it.

Its roles, each a process of its own that speaks to the others, and to SPIRE's, over SPIFFE's and SPIRE's protocols:

  issuer    the authority of a trust domain, and its registry of who gets which identity   (as spire-server)
  agent     gives the processes of one machine their identities: Workload API and SDS      (as spire-agent)
  sidecar   mutual TLS for an unmodified program beside it                                 (as ghostunnel)
  sds       the same identities for Envoy, from any Workload API

First steps, on one machine and with nothing to configure:

  lanyard up                       issuer and agent in one; it prints what to try next
  lanyard issuer entry create -h   say who gets which identity
  lanyard sidecar server -h        put mutual TLS before a program`
