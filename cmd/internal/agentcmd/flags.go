package agentcmd

import (
	"slices"
	"time"

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
	trustBundle, trustBundleURL        string
	trustBundleFormat                  string
	dataDir, socketPath                string
	rebootstrapMode                    string
	rebootstrapDelay                   time.Duration
	insecureBootstrap, expandEnv       bool
	disableWorkloadAPI, disableSDSAPI  bool
	unauthenticatedVerifiers           bool
	takeOver                           bool
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
	fs.StringVar(&f.joinTokenFile, "joinTokenFile", "", "`FILE` with a join token, - for stdin; conflicts with -joinToken")
	fs.StringVar(&f.joinToken, "joinToken", "", "join `TOKEN`; others on this machine see it in the list of processes: prefer -joinTokenFile")
	if !env.Dialect.SPIRE() {
		fs.StringVar(&f.nodeAttestor, "nodeAttestor", "", "`METHOD` that the token is for, join_token or join_key (default: the file's, or join_token)")
	}
	fs.StringVar(&f.trustBundle, "trustBundle", "", "PEM `FILE` with the issuer's bundle, for the first start; conflicts with -insecureBootstrap")
	fs.StringVar(&f.trustBundleURL, "trustBundleUrl", "", "https `URL` of the issuer's bundle, for the first start; instead of -trustBundle")
	fs.StringVar(&f.trustBundleFormat, "trustBundleFormat", "", "`FORMAT` of the bundle: pem or spiffe (default pem)")
	fs.BoolVar(&f.insecureBootstrap, "insecureBootstrap", false, "for trials: take whoever answers the first time for the issuer")
	fs.StringVar(&f.rebootstrapMode, "rebootstrapMode", "", "`MODE`: auto or always forget the bundle and join anew where the issuer has an unknown authority (default never)")
	fs.DurationVar(&f.rebootstrapDelay, "rebootstrapDelay", 0, "`DURATION` for which it must have had that (default 10m)")
	fs.StringVar(&f.dataDir, "dataDir", "", "`DIR` for the agent's key and SVID, made 0700 (default "+data+")")
	fs.StringVar(&f.socketPath, "socketPath", "", "`PATH` of the socket for the Workload API and SDS, open to all (default "+env.AgentSocket()+")")
	fs.BoolVar(&f.disableWorkloadAPI, "disableWorkloadAPI", false, "don't serve the Workload API")
	fs.BoolVar(&f.disableSDSAPI, "disableSDSAPI", false, "don't serve SDS to Envoys")
	fs.BoolVar(&f.unauthenticatedVerifiers, "allowUnauthenticatedVerifiers", false, "give the trust domain's bundles to callers without an identity, too")
	if !env.Dialect.SPIRE() {
		fs.BoolVar(&f.takeOver, "takeOver", false, "take the sockets over from the agent that runs with this -dataDir, which stops then: no workload notices")
	}
	f.logs.Add(fs)
}

// override lets the flags given go before the file.
func (f *flags) override(c *nodeagent.Config, to *issuers) error {
	if f.set.Changed("trustDomain") {
		td, err := spiffeid.TrustDomainFromString(f.trustDomain)
		if err != nil {
			return cli.Usagef("-trustDomain %q: %v", f.trustDomain, err)
		}
		c.TrustDomain = td
	}
	for name, field := range map[string]*string{"serverAddress": &to.host, "dataDir": &c.DataDir, "socketPath": &c.SocketPath, "rebootstrapMode": &c.Rebootstrap} {
		if f.set.Changed(name) {
			*field, _ = f.set.GetString(name)
		}
	}
	for name, field := range map[string]*bool{"disableWorkloadAPI": &c.DisableWorkloadAPI, "allowUnauthenticatedVerifiers": &c.AllowUnauthenticatedVerifiers} {
		if f.set.Changed(name) {
			*field, _ = f.set.GetBool(name)
		}
	}
	if f.set.Changed("serverPort") {
		to.port = f.serverPort
	}
	if f.set.Changed("serverAddress") || f.set.Changed("serverPort") {
		to.several = nil
	}
	if f.set.Changed("rebootstrapDelay") {
		c.RebootstrapDelay = f.rebootstrapDelay
	}
	c.TakeOver = f.takeOver
	if err := checkMode(f.rebootstrapMode); err != nil {
		return cli.Usagef("-rebootstrapMode %v", err)
	}
	if !slices.Contains([]string{"", nodeattest.JoinToken, nodeattest.JoinKey}, f.nodeAttestor) {
		return cli.Usagef("-nodeAttestor %q: want %s or %s; others are configured in a file", f.nodeAttestor, nodeattest.JoinToken, nodeattest.JoinKey)
	}
	return nil
}
