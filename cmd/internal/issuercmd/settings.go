package issuercmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/conffile"
	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/issuer"
)

// spireConfig is the file spire-server reads when no -config is given.
const spireConfig = "conf/server/server.conf"

// flags are those of run and validate: SPIRE's.
type flags struct {
	config, dataDir, trustDomain, bindAddress, socketPath string
	port                                                  int
	expandEnv                                             bool
	logs                                                  cli.LogFlags
	set                                                   *pflag.FlagSet
}

func (f *flags) add(env *cli.Env, fs *pflag.FlagSet) {
	fs.SortFlags = false
	f.set = fs
	config := "configuration `FILE` (default none)"
	if env.Dialect.SPIRE() {
		config = "configuration `FILE` (default " + spireConfig + ")"
	}
	fs.StringVar(&f.config, "config", "", config)
	fs.BoolVar(&f.expandEnv, "expandEnv", false, "replace $NAME and ${NAME} in the file by the environment")
	fs.StringVar(&f.trustDomain, "trustDomain", "", "`NAME` of the trust domain (default without -config: "+cli.DefaultTrustDomain+")")
	fs.StringVar(&f.dataDir, "dataDir", "", "`DIR` for keys and records, made 0700 (default "+pathOr(env, cli.Paths.IssuerState)+")")
	fs.StringVar(&f.bindAddress, "bindAddress", "", "`IP` address to serve agents on (default "+defaultBind(env)+")")
	fs.IntVar(&f.port, "serverPort", 0, "TCP `PORT` to serve agents on, 0 for any that is free (default 8081)")
	fs.StringVar(&f.socketPath, "socketPath", "", "`PATH` of the admin socket, made 0600 (default "+env.IssuerSocket()+")")
	f.logs.Add(fs)
}

func pathOr(env *cli.Env, of func(cli.Paths) string) string {
	p, err := env.DefaultPaths()
	if err != nil {
		return "none: " + err.Error()
	}
	return of(p)
}

func defaultBind(env *cli.Env) string {
	if env.Dialect.SPIRE() {
		return "0.0.0.0"
	}
	return cli.DefaultBindAddress
}

// settings is a configuration that run can start with.
type settings struct {
	issuer  issuer.Config
	process spireconf.Process
}

// settings reads flags and file, and checks all that can be checked without starting.
func (f *flags) settings(ctx context.Context, env *cli.Env) (settings, error) {
	if err := f.logs.Check(); err != nil {
		return settings{}, err
	}
	var content file
	conf, err := conffile.Source{Named: f.config, SPIRE: spireConfig, ExpandEnv: f.expandEnv}.Read(env, &content)
	if err != nil {
		return settings{}, err
	}
	if content.Server == nil {
		content.Server = &serverBlock{}
	}
	server := content.Server
	s := settings{
		issuer: server.issuerConfig(),
		process: spireconf.Process{
			Log:       f.logs.Over(telemetry.Config{Level: server.LogLevel, Format: server.LogFormat, File: server.LogFile, Source: server.LogSourceLocation}),
			Profiling: server.profiling(),
		},
	}
	s.issuer.BindPort = cli.DefaultPort
	if server.BindPort != nil {
		s.issuer.BindPort = *server.BindPort
	}
	s.issuer.Metrics, s.issuer.Health, s.issuer.OIDC = content.Telemetry.Config(), content.HealthChecks.Config(), content.OIDC.config(server)
	s.issuer.Version = cli.Version()
	if err := f.override(&s.issuer); err != nil {
		return settings{}, err
	}
	if err := f.fill(env, &s.issuer, conf); err != nil {
		return settings{}, err
	}
	if err := check(ctx, conf, content, &s); err != nil {
		return settings{}, err
	}
	if conf != nil {
		s.process.Notes = conf.Notes()
	}
	return s, nil
}

// override lets the flags given go before the file.
func (f *flags) override(c *issuer.Config) error {
	if f.set.Changed("trustDomain") {
		td, err := spiffeid.TrustDomainFromString(f.trustDomain)
		if err != nil {
			return cli.Usagef("-trustDomain %q: %v", f.trustDomain, err)
		}
		c.TrustDomain = td
	}
	for name, field := range map[string]*string{"dataDir": &c.DataDir, "bindAddress": &c.BindAddress, "socketPath": &c.SocketPath} {
		if f.set.Changed(name) {
			*field, _ = f.set.GetString(name)
		}
	}
	if f.set.Changed("serverPort") {
		c.BindPort = f.port
	}
	return nil
}

// fill puts defaults where neither flags nor file say anything. The trust domain has one only where there is no file: it is
// not to be forgotten in one.
func (f *flags) fill(env *cli.Env, c *issuer.Config, conf *hclconf.File) error {
	if c.TrustDomain.IsZero() && conf == nil {
		c.TrustDomain = spiffeid.RequireTrustDomainFromString(cli.DefaultTrustDomain)
	}
	if c.DataDir == "" && !env.Dialect.SPIRE() {
		paths, err := env.DefaultPaths()
		if err != nil {
			return err
		}
		c.DataDir = paths.IssuerState()
	}
	if c.BindAddress == "" {
		c.BindAddress = defaultBind(env)
	}
	if c.SocketPath == "" {
		c.SocketPath = env.IssuerSocket()
	}
	return nil
}

// check finds what is wrong with the whole: the file's faults, and what the issuer says of the result, at the line it is
// from. What plugins {} says becomes part of the configuration here.
func check(ctx context.Context, conf *hclconf.File, content file, s *settings) error {
	address, addressErr := bindable(lookup(ctx), s.issuer.BindAddress)
	if addressErr == nil {
		s.issuer.BindAddress = address
	}
	if conf == nil {
		return errors.Join(prefixed("bind_address ", addressErr), s.issuer.Validate())
	}
	readable := conf.Faults() == 0 // a value that couldn't be read would be called missing too
	content.Server.check(conf)
	(&plugins{conf: conf, cfg: &s.issuer}).read(content.Plugins)
	if addressErr != nil {
		conf.Errorf(conf.At("server.bind_address"), "server.bind_address %v", addressErr)
		s.issuer.BindAddress = ""
	}
	checkListeners(conf, s.issuer)
	if readable {
		rest := s.issuer
		rest.OIDC = nil // checked already
		conf.CheckAll("server", rest.Validate())
	}
	if err := conf.Err(); err != nil {
		return err
	}
	notices(conf, content, s.issuer)
	return nil
}

// checkListeners finds the faults of the blocks beside server {}.
func checkListeners(conf *hclconf.File, c issuer.Config) {
	spireconf.CheckListeners(conf, c.Metrics, c.Health)
	if c.OIDC == nil {
		return
	}
	if c.DisableJWTSVIDs {
		conf.Errorf(conf.At("oidc"), "oidc: there are no JWT-SVIDs to verify with server.disable_jwt_svids: remove one of them")
	}
	withKeys := *c.OIDC
	withKeys.Keys = func() []*types.JWTKey { return nil } // the issuer's, once it runs
	spireconf.CheckBlock(conf, "oidc", withKeys.Validate())
}

func prefixed(prefix string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%w", prefix, err)
}

// lookupTimeout bounds the wait for a name server.
const lookupTimeout = 5 * time.Second

func lookup(ctx context.Context) func(string) ([]netip.Addr, error) {
	return func(host string) ([]netip.Addr, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
}
