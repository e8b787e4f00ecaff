package agentcmd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/conffile"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/sds"
)

// settings is a configuration that run can start with.
type settings struct {
	agent nodeagent.Config
	sds   sds.Options
	log   telemetry.Config
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
	block := content.Agent
	if block == nil {
		block = &agentBlock{}
	}
	s := block.settings()
	s.log = f.logs.Over(s.log)
	host, port := block.ServerAddress, cli.DefaultPort
	if block.ServerPort != nil {
		port = *block.ServerPort
	}
	if err := f.override(&s.agent, &host, &port); err != nil {
		return settings{}, err
	}
	if err := fill(env, &s.agent, &host, conf); err != nil {
		return settings{}, err
	}
	s.agent.ServerAddress = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
	s.agent.Version = agentVersion()
	if conf == nil {
		s.agent.Attestor, err = f.attestor(env, nil, block, chosenAttestor{}, s.agent.DataDir)
		if err != nil {
			return settings{}, err
		}
		return s, errors.Join(checkPort(port), s.agent.Validate())
	}
	unix, node := content.Plugins.check(conf, s.agent.DataDir)
	s.agent.DiscoverWorkloadPath, s.agent.WorkloadSizeLimit = unix.DiscoverWorkloadPath, unix.WorkloadSizeLimit
	s.agent.Attestor, err = f.attestor(env, conf, block, node, s.agent.DataDir)
	if err != nil {
		return settings{}, err
	}
	f.check(conf, block, &s, host, port)
	return s, conf.Err()
}

// agentVersion is what the issuer is told: lanyard/VERSION.
func agentVersion() string {
	if words := strings.Fields(cli.Version()); len(words) > 1 {
		return "lanyard/" + strings.Trim(words[1], ",")
	}
	return "lanyard"
}

// settings gives what the file's block says.
func (b *agentBlock) settings() settings {
	s := settings{
		agent: nodeagent.Config{
			TrustDomain: b.TrustDomain, DataDir: b.DataDir, SocketPath: b.SocketPath, AdminSocketPath: b.AdminSocketPath,
			TrustBundlePath: b.TrustBundlePath, InsecureBootstrap: b.InsecureBootstrap, X509SVIDCacheMaxSize: b.X509CacheMaxSize, WorkloadKeyType: b.KeyType,
			JWTSVIDCacheMaxSize: b.JWTCacheMaxSize, AllowedForeignJWTClaims: b.ForeignJWTClaims,
		},
		log: telemetry.Config{Level: b.LogLevel, Format: b.LogFormat, File: b.LogFile, Source: b.LogSourceLocation},
	}
	if b.Experimental != nil {
		s.agent.SyncInterval = b.Experimental.SyncInterval
	}
	if b.SDS != nil {
		s.sds = sds.Options{SVIDName: b.SDS.SVIDName, BundleName: b.SDS.BundleName, AllBundlesName: b.SDS.AllBundlesName, DisableSPIFFECertValidation: b.SDS.PlainCA}
	}
	return s
}

// fill puts defaults where neither flags nor file say anything. Trust domain and issuer have one only where there is no
// file: they are not to be forgotten in one.
func fill(env *cli.Env, c *nodeagent.Config, host *string, conf *hclconf.File) error {
	if conf == nil {
		if c.TrustDomain.IsZero() {
			c.TrustDomain = spiffeid.RequireTrustDomainFromString(cli.DefaultTrustDomain)
		}
		if *host == "" {
			*host = cli.DefaultBindAddress
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

// check finds what is wrong with a configuration that has a file, at the line it is from.
func (f *flags) check(conf *hclconf.File, b *agentBlock, s *settings, host string, port int) {
	conf.Check("agent.log_level", telemetry.Check(b.LogLevel, ""))
	conf.Check("agent.log_format", telemetry.Check("", b.LogFormat))
	conf.Check("agent.sds", s.sds.Validate())
	if b.TrustBundlePath != "" && b.InsecureBootstrap {
		conf.Errorf(conf.At("agent.insecure_bootstrap"), "agent.insecure_bootstrap and agent.trust_bundle_path are both set: keep the bundle")
	}
	if conf.Err() != nil { // a value that couldn't be read would be called missing too
		return
	}
	if host == "" {
		conf.Errorf(conf.At("agent"), "agent.server_address is missing: the issuer's host name or IP address")
	}
	conf.Check("agent.server_port", checkPort(port))
	if _, err := os.Stat(b.TrustBundlePath); b.TrustBundlePath != "" && err != nil && f.trustBundle == "" {
		conf.Errorf(conf.At("agent.trust_bundle_path"), "agent.trust_bundle_path %s: %v; it is the output of \"lanyard issuer bundle show\"", b.TrustBundlePath, errors.Unwrap(err))
		return
	}
	conf.CheckAll("agent", s.agent.Validate())
}

func checkPort(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d of the issuer: want 1 to 65535", port)
	}
	return nil
}
