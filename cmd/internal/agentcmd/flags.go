package agentcmd

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/nodeagent"
)

// spireConfig is the file spire-agent reads when no -config is given.
const spireConfig = "conf/agent/agent.conf"

// flags are those of run and validate: SPIRE's.
type flags struct {
	config, trustDomain, serverAddress string
	serverPort                         int
	joinToken, joinTokenFile           string
	nodeAttestor                       string
	trustBundle, dataDir, socketPath   string
	insecureBootstrap, expandEnv       bool
	logs                               cli.LogFlags
	set                                *pflag.FlagSet
}

func (f *flags) add(env *cli.Env, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	f.set = fs
	config, data := "none", "."
	if env.Dialect.SPIRE() {
		config = spireConfig
	} else if p, err := env.DefaultPaths(); err == nil {
		data = p.AgentState()
	}
	fs.StringVar(&f.config, "config", "", "configuration `FILE` (default "+config+")")
	fs.BoolVar(&f.expandEnv, "expandEnv", false, "replace $NAME and ${NAME} in the file by the environment")
	fs.StringVar(&f.trustDomain, "trustDomain", "", "`NAME` of the trust domain (default without -config: "+cli.DefaultTrustDomain+")")
	fs.StringVar(&f.serverAddress, "serverAddress", "", "`HOST` of the issuer (default without -config: 127.0.0.1)")
	fs.IntVar(&f.serverPort, "serverPort", 0, "TCP `PORT` of the issuer (default 8081)")
	fs.StringVar(&f.joinTokenFile, "joinTokenFile", "", "`FILE` with a join token, - for standard input; conflicts with -joinToken")
	fs.StringVar(&f.joinToken, "joinToken", "", "join `TOKEN`; others on this machine see it in the list of processes: prefer -joinTokenFile")
	if !env.Dialect.SPIRE() {
		fs.StringVar(&f.nodeAttestor, "nodeAttestor", "", "`METHOD` that the token is for, join_token or join_key (default: the file's, or join_token)")
	}
	fs.StringVar(&f.trustBundle, "trustBundle", "", "PEM `FILE` with the issuer's bundle, for the first start; conflicts with -insecureBootstrap")
	fs.BoolVar(&f.insecureBootstrap, "insecureBootstrap", false, "for trials: take whoever answers the first time for the issuer")
	fs.StringVar(&f.dataDir, "dataDir", "", "`DIR` for the agent's key and SVID, made 0700 (default "+data+")")
	fs.StringVar(&f.socketPath, "socketPath", "", "`PATH` of the socket for the Workload API and SDS, open to all (default "+env.AgentSocket()+")")
	f.logs.Add(fs)
	cli.NotYetFlags(cmd, "SPIRE", "disableWorkloadAPI", "disableSDSAPI", "trustBundleUrl", "trustBundleFormat", "allowUnauthenticatedVerifiers",
		"rebootstrapMode", "rebootstrapDelay")
}

// override lets the flags given go before the file.
func (f *flags) override(c *nodeagent.Config, host *string, port *int) error {
	if f.set.Changed("trustDomain") {
		td, err := spiffeid.TrustDomainFromString(f.trustDomain)
		if err != nil {
			return cli.Usagef("-trustDomain %q: %v", f.trustDomain, err)
		}
		c.TrustDomain = td
	}
	for name, field := range map[string]*string{"serverAddress": host, "trustBundle": &c.TrustBundlePath, "dataDir": &c.DataDir, "socketPath": &c.SocketPath} {
		if f.set.Changed(name) {
			*field, _ = f.set.GetString(name)
		}
	}
	if f.set.Changed("serverPort") {
		*port = f.serverPort
	}
	c.InsecureBootstrap = c.InsecureBootstrap || f.insecureBootstrap
	if f.trustBundle != "" && f.insecureBootstrap {
		return cli.Usagef("-trustBundle and -insecureBootstrap can't be combined: the bundle makes it secure")
	}
	if !slices.Contains([]string{"", nodeattest.JoinToken, nodeattest.JoinKey}, f.nodeAttestor) {
		return cli.Usagef("-nodeAttestor %q: want %s or %s; others are configured in a file", f.nodeAttestor, nodeattest.JoinToken, nodeattest.JoinKey)
	}
	return nil
}
