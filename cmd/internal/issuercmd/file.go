package issuercmd

import (
	"errors"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// file is the issuer's configuration file: all of SPIRE's server.conf, and what Lanyard adds in blocks of its own.
type file struct {
	Server       *serverBlock            `hcl:"server,block"`
	Plugins      *pluginsBlock           `hcl:"plugins,block"`
	Telemetry    *spireconf.Telemetry    `hcl:"telemetry,block"`
	HealthChecks *spireconf.HealthChecks `hcl:"health_checks,block"`
	OIDC         *oidcBlock              `hcl:"oidc,block"`
}

type serverBlock struct {
	TrustDomain spiffeid.TrustDomain `hcl:"trust_domain,optional"`
	DataDir     string               `hcl:"data_dir,optional"`
	BindAddress string               `hcl:"bind_address,optional"`
	BindPort    *int                 `hcl:"bind_port,optional"`
	SocketPath  string               `hcl:"socket_path,optional"`
	AdminIDs    []spiffeid.ID        `hcl:"admin_ids,optional"`

	CATTL              time.Duration   `hcl:"ca_ttl,optional"`
	CAKeyType          string          `hcl:"ca_key_type,optional"`
	CASubject          *caSubjectBlock `hcl:"ca_subject,block"`
	DefaultX509SVIDTTL time.Duration   `hcl:"default_x509_svid_ttl,optional"`
	AgentTTL           time.Duration   `hcl:"agent_ttl,optional"`
	DefaultJWTSVIDTTL  time.Duration   `hcl:"default_jwt_svid_ttl,optional"`
	JWTKeyType         string          `hcl:"jwt_key_type,optional"`
	JWTIssuer          string          `hcl:"jwt_issuer,optional"`
	DisableJWTSVIDs    bool            `hcl:"disable_jwt_svids,optional"`

	AuditLogEnabled   bool   `hcl:"audit_log_enabled,optional"`
	LogFile           string `hcl:"log_file,optional"`
	LogLevel          string `hcl:"log_level,optional"`
	LogFormat         string `hcl:"log_format,optional"`
	LogSourceLocation bool   `hcl:"log_source_location,optional"`

	PruneExpiredFor  time.Duration `hcl:"prune_attested_nodes_expired_for,optional"`
	PruneBatchSize   int           `hcl:"prune_attested_nodes_batch_size,optional"`
	PruneTOFUNodes   bool          `hcl:"prune_tofu_nodes,optional"`
	NodeInfoStale    time.Duration `hcl:"max_attested_node_info_staleness,optional"`
	ProxyProtocol    []cidr        `hcl:"proxy_protocol_trusted_cidrs,optional"`
	ProfilingEnabled bool          `hcl:"profiling_enabled,optional"`
	ProfilingPort    int           `hcl:"profiling_port,optional"`
	ProfilingFreq    int           `hcl:"profiling_freq,optional"`
	ProfilingNames   []string      `hcl:"profiling_names,optional"`

	RateLimit    *rateLimitBlock    `hcl:"ratelimit,block"`
	Federation   *federationBlock   `hcl:"federation,block"`
	Experimental *experimentalBlock `hcl:"experimental,block"`
}

type caSubjectBlock struct {
	Country      []string `hcl:"country,optional"`
	Organization []string `hcl:"organization,optional"`
	CommonName   string   `hcl:"common_name,optional"`
}

type rateLimitBlock struct {
	Attestation *bool `hcl:"attestation,optional"`
	Signing     *bool `hcl:"signing,optional"`
}

// federationBlock may be there, as long as it asks for nothing.
type federationBlock struct {
	_ hclconf.NotYet `names:"bundle_endpoint" instead:"other trust domains take this one's bundle from \"bundle show\""`
	_ hclconf.NotYet `names:"federates_with" instead:"give their bundles by \"bundle set\""`
}

type experimentalBlock struct {
	AgentIDAsSelector bool          `hcl:"agent_spiffe_id_as_selector,optional"`
	CacheReload       time.Duration `hcl:"cache_reload_interval,optional"`
	FullCacheReload   time.Duration `hcl:"full_cache_reload_interval,optional"`
	EventsBasedCache  bool          `hcl:"events_based_cache,optional"`
	PruneEvents       time.Duration `hcl:"prune_events_older_than,optional"`
	EventTimeout      time.Duration `hcl:"event_timeout,optional"`
	SQLTimeout        time.Duration `hcl:"sql_transaction_timeout,optional"`
	RequirePQKEM      bool          `hcl:"require_pq_kem,optional"`
	WITKeyType        string        `hcl:"wit_key_type,optional"`
	WITIssuer         string        `hcl:"wit_issuer,optional"`
	FeatureFlags      []string      `hcl:"feature_flags,optional"`
	NamedPipeName     string        `hcl:"named_pipe_name,optional"`

	_ hclconf.NotYet `names:"auth_opa_policy_engine" instead:"callers are authorized by SPIRE's default policy"`
}

// cidr is a network. Bits behind its mask are let be, as SPIRE does.
type cidr struct{ netip.Prefix }

var errNoCIDR = errors.New("want a network like 10.0.0.0/8")

func (c *cidr) UnmarshalText(text []byte) (err error) {
	if c.Prefix, err = netip.ParsePrefix(string(text)); err != nil {
		return errNoCIDR
	}
	c.Prefix = c.Masked()
	return nil
}
