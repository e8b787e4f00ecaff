package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/conffile"
	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	"github.com/lanyard-mtls/lanyard/sds"
)

// settings is a configuration that run can start with.
type settings struct {
	agent nodeagent.Config
	// sds is nil where it is not served.
	sds     *sds.Options
	process spireconf.Process
	// attestors make the workload attestors beside unix, which log.
	attestors []newAttestor
}

type newAttestor func(*slog.Logger) (workloadattest.Plugin, error)

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
	if content.Agent == nil {
		content.Agent = &agentBlock{}
	}
	block := content.Agent
	s := settings{agent: block.config(), process: block.process()}
	s.process.Log = f.logs.Over(s.process.Log)
	s.agent.Metrics, s.agent.Health = content.Telemetry.Config(), content.HealthChecks.Config()
	s.agent.Version = agentVersion()
	to := block.issuers(conf)
	if err := f.override(&s.agent, &to); err != nil {
		return settings{}, err
	}
	if err := fill(env, &s.agent, &to, conf); err != nil {
		return settings{}, err
	}
	to.into(&s.agent)
	if disabled := block.DisableSDSAPI; !f.set.Changed("disableSDSAPI") && !disabled || f.set.Changed("disableSDSAPI") && !f.disableSDSAPI {
		s.sds = block.SDS.options()
	}
	if conf == nil {
		return s, f.withoutFile(ctx, env, &s, to)
	}
	if err := f.withFile(ctx, env, &s, conf, content, to); err != nil {
		return settings{}, err
	}
	s.process.Notes = conf.Notes()
	return s, nil
}

// withoutFile finds what is wrong with flags alone.
func (f *flags) withoutFile(ctx context.Context, env *cli.Env, s *settings, to issuers) error {
	choice, err := f.trust((&agentBlock{}).trust(nil))
	if err != nil {
		return err
	}
	if fault := choice.into(ctx, &s.agent); fault != nil {
		return fmt.Errorf("%s: %w", fault.key, fault.err)
	}
	if s.agent.Attestor, err = f.attestor(env, nil, &agentBlock{}, chosenAttestor{}, s.agent.DataDir); err != nil {
		return err
	}
	return errors.Join(to.checkPort(), checkRebootstrap(s.agent), s.agent.Validate())
}

// withFile finds what is wrong with the whole, at the lines it is from. What plugins {} says becomes part of the configuration
// here.
func (f *flags) withFile(ctx context.Context, env *cli.Env, s *settings, conf *hclconf.File, content file, to issuers) error {
	readable := conf.Faults() == 0 // a value that couldn't be read would be called missing too
	block := content.Agent
	choice, err := f.trust(block.trust(conf))
	if err != nil {
		return err
	}
	ps := &plugins{conf: conf, settings: s, getenv: env.Getenv}
	ps.read(content.Plugins)
	if s.agent.Attestor, err = f.attestor(env, conf, block, ps.node, s.agent.DataDir); err != nil {
		return err
	}
	s.agent.Sockets = block.sockets(conf)
	block.check(conf, s)
	spireconf.CheckListeners(conf, s.agent.Metrics, s.agent.Health)
	if readable {
		to.check(conf)
		checkWhole(ctx, conf, s, choice)
	}
	if err := conf.Err(); err != nil {
		return err
	}
	notices(conf, content, s.agent)
	return nil
}

// checkWhole finds what is wrong with a configuration each setting of which could be read.
func checkWhole(ctx context.Context, conf *hclconf.File, s *settings, choice trustChoice) {
	if fault := choice.into(ctx, &s.agent); fault != nil {
		conf.Errorf(conf.At(fault.key), "%s: %v", fault.key, fault.err)
	}
	if err := checkRebootstrap(s.agent); err != nil {
		conf.Errorf(conf.At("agent.rebootstrap_mode"), "agent.%v", err)
	}
	rest := s.agent
	rest.Metrics.Prometheus, rest.Health.Enabled, rest.Sockets, rest.WorkloadKeyType = nil, false, nil, "" // checked already
	conf.CheckAll("agent", rest.Validate())
}

// agentVersion is what the issuer is told: lanyard/VERSION.
func agentVersion() string {
	if words := strings.Fields(cli.Version()); len(words) > 1 {
		return "lanyard/" + strings.Trim(words[1], ",")
	}
	return "lanyard"
}

// config is what agent {} says, as far as it needs no check.
func (b *agentBlock) config() nodeagent.Config {
	c := nodeagent.Config{
		TrustDomain: b.TrustDomain, DataDir: b.DataDir, SocketPath: b.SocketPath, AdminSocketPath: b.AdminSocketPath,
		Rebootstrap: b.RebootstrapMode, RebootstrapDelay: b.RebootstrapDelay,
		WorkloadKeyType: b.KeyType, AvailabilityTarget: b.AvailabilityTarget, X509SVIDCacheMaxSize: b.X509CacheMaxSize, JWTSVIDCacheMaxSize: b.JWTCacheMaxSize,
		AuthorizedDelegates: b.AuthorizedDelegates, AllowUnauthenticatedVerifiers: b.AllowUnauthenticatedVerifiers, AllowedForeignJWTClaims: b.ForeignJWTClaims,
		DisableWorkloadAPI: b.DisableWorkloadAPI, LogSelectors: b.LogSelectors,
	}
	if e := b.Experimental; e != nil {
		c.SyncInterval, c.JWTSVIDCacheHitTimeout, c.RequirePQKEM, c.RateLimits = e.SyncInterval, e.JWTSVIDCacheHitTimeout, e.RequirePQKEM, e.RateLimit.limits()
		c.NoSyncAuthorizedEntries = e.UseSyncAuthorizedEntries != nil && !*e.UseSyncAuthorizedEntries
	}
	return c
}

func (b *agentBlock) process() spireconf.Process {
	return spireconf.Process{
		Log:       telemetry.Config{Level: b.LogLevel, Format: b.LogFormat, File: b.LogFile, Source: b.LogSourceLocation},
		Profiling: spireconf.Profiling{Enabled: b.ProfilingEnabled, Port: b.ProfilingPort},
	}
}

func (b *sdsBlock) options() *sds.Options {
	if b == nil {
		return &sds.Options{}
	}
	return &sds.Options{SVIDName: b.SVIDName, BundleName: b.BundleName, AllBundlesName: b.AllBundlesName, DisableSPIFFECertValidation: b.PlainCA}
}

// fill puts defaults where neither flags nor file say anything. Trust domain and issuer have one only where there is no
// file: they are not to be forgotten in one.
func fill(env *cli.Env, c *nodeagent.Config, to *issuers, conf *hclconf.File) error {
	if conf == nil {
		if c.TrustDomain.IsZero() {
			c.TrustDomain = spiffeid.RequireTrustDomainFromString(cli.DefaultTrustDomain)
		}
		if to.host == "" {
			to.host = cli.DefaultBindAddress
		}
	}
	if c.SocketPath == "" {
		c.SocketPath = env.AgentSocket()
	}
	if env.Dialect.SPIRE() {
		if c.DataDir == "" {
			c.DataDir = "."
		}
		return nil
	}
	paths, err := env.DefaultPaths()
	if err != nil {
		return err
	}
	if c.DataDir == "" {
		c.DataDir = paths.AgentState()
	}
	if c.AdminSocketPath == "" && c.SocketPath == paths.AgentSocket() {
		c.AdminSocketPath = paths.AgentAdminSocket()
	}
	return nil
}
