package issuercmd

import (
	"crypto/x509/pkix"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/conffile"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
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
	issuer issuer.Config
	log    telemetry.Config
}

// settings reads flags and file, and checks all that can be checked without starting.
func (f *flags) settings(env *cli.Env) (settings, error) {
	if err := f.logs.Check(); err != nil {
		return settings{}, err
	}
	var content file
	conf, err := conffile.Source{Named: f.config, SPIRE: spireConfig, ExpandEnv: f.expandEnv}.Read(env, &content)
	if err != nil {
		return settings{}, err
	}
	server := content.Server
	if server == nil {
		server = &serverBlock{}
	}
	s := settings{
		issuer: issuer.Config{
			TrustDomain: server.TrustDomain, DataDir: server.DataDir, BindAddress: server.BindAddress, BindPort: cli.DefaultPort,
			SocketPath: server.SocketPath, AdminIDs: server.AdminIDs, CATTL: server.CATTL,
			DefaultX509SVIDTTL: server.DefaultX509SVIDTTL, AgentTTL: server.AgentTTL,
		},
		log: f.logs.Over(telemetry.Config{Level: server.LogLevel, Format: server.LogFormat, File: server.LogFile, Source: server.LogSourceLocation}),
	}
	if server.BindPort != nil {
		s.issuer.BindPort = *server.BindPort
	}
	if c := server.CASubject; c != nil {
		s.issuer.CASubject = pkix.Name{Country: c.Country, Organization: c.Organization, CommonName: c.CommonName}
	}
	if err := f.override(&s.issuer); err != nil {
		return settings{}, err
	}
	if err := f.fill(env, &s.issuer, conf); err != nil {
		return settings{}, err
	}
	return s, check(conf, content, s)
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
// from.
func check(conf *hclconf.File, content file, s settings) error {
	if conf == nil {
		return s.issuer.Validate()
	}
	content.Plugins.check(conf, filepath.Join(s.issuer.DataDir, "keys.json"))
	if server := content.Server; server != nil {
		conf.Check("server.log_level", telemetry.Check(server.LogLevel, ""))
		conf.Check("server.log_format", telemetry.Check("", server.LogFormat))
	}
	if conf.Err() == nil { // a value that couldn't be read would be called missing too
		conf.CheckAll("server", s.issuer.Validate())
	}
	return conf.Err()
}

func samePath(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errors.Join(errA, errB) == nil && absA == absB && !strings.HasSuffix(a, "/")
}
