package sidecarcmd

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
)

// options is what the command line of server or client says, before anything is made of it.
type options struct {
	env  *cli.Env
	set  *pflag.FlagSet
	from map[string]string // flag -> the variable its value is from

	// Where.
	listen, target, targetStatus string
	unsafeListen, unsafeTarget   bool
	serverName, proxy            string
	proxyProtocol                bool
	proxyProtocolMode            cli.Choice
	acceptProxy, alpn            cli.Strings
	socketMode                   octal
	reusePort, skipResolve       bool

	// Identity.
	keystore, storePass, cert, key, caCert  string
	workloadAPI                             bool
	workloadAddr, spiffeID, hint            string
	workloadTimeout                         time.Duration
	trustBundles                            cli.Strings
	pkcs11Module, pkcs11Label, pkcs11PIN    string
	acmeFQDN, acmeEmail, acmeCA, acmeTestCA string
	acmeAgree                               bool
	acmeInterval                            time.Duration
	acmePort                                int
	cipherSuites, maxTLS                    string
	unsafeCiphers, noResumption, watch      bool
	timedReload                             time.Duration

	// Who may: --allow-… of a server, --verify-… of a client.
	allowAll, ownTrustDomain, disableAuth bool
	cns, ous, dnsNames, ips, uris, pins   cli.Strings
	trustDomains, denyURIs                cli.Strings
	policyPath, policyQuery               string

	// Times and limits.
	shutdown, drainIdle, connect, closing time.Duration
	idle, maxAge, keepAlive, userTimeout  time.Duration
	maxConns, perPeer, handshakes         uint32

	// Health, metrics and logs.
	status                              string
	pprof, shutdownEndpoint             bool
	graphite, metricsURL, metricsPrefix string
	metricsInterval                     time.Duration
	quiet                               choices
	syslog                              bool
	logs                                cli.LogFlags

	// The process.
	useLandlock, disableLandlock bool
}

// Defaults that no package below has.
const (
	defaultClose     = time.Minute
	defaultCiphers   = "AES,CHACHA"
	defaultKeepAlive = 15 * time.Second
)

func newOptions(env *cli.Env) *options {
	return &options{
		env: env, from: map[string]string{},
		proxyProtocolMode: cli.Choice{Accepts: []string{"conn", "tls", "tls-full"}},
		quiet:             choices{accepts: []string{"all", "conns", "conn-errs", "handshake-errs"}},
		socketMode:        0o600,
		shutdown:          sidecar.DefaultShutdownTimeout, drainIdle: sidecar.DefaultDrainIdle, connect: sidecar.DefaultConnectTimeout, closing: defaultClose,
		keepAlive: defaultKeepAlive, handshakes: sidecar.DefaultHandshakes,
		metricsInterval: metrics.DefaultInterval, metricsPrefix: metrics.DefaultPrefix, cipherSuites: defaultCiphers,
	}
}

// add adds flags, and remembers where they are.
func (o *options) add(fs *pflag.FlagSet, flags []flag) {
	fs.SortFlags = false
	o.set = fs
	for _, f := range flags {
		f.add(fs, o.env.Dialect == cli.Ghostunnel)
	}
}

// environment fills in what the command line left to it. An empty variable is none.
func (o *options) environment(flags []flag) error {
	for _, f := range flags {
		if f.env == "" || o.set.Changed(f.name) {
			continue
		}
		value := o.env.Getenv(f.env)
		if value == "" {
			continue
		}
		if err := o.set.Lookup(f.name).Value.Set(value); err != nil {
			return cli.Usagef("--%s, from $%s: %v", f.name, f.env, err)
		}
		o.from[f.name] = f.env
	}
	return nil
}

// given says whether the command line has the flag; the environment doesn't count.
func (o *options) given(name string) bool { return o.set.Changed(name) }
