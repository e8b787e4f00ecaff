package agentcmd

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// file is the agent's configuration file: all of SPIRE's agent.conf, and what Lanyard adds to its agent {}: server_addresses
// and socket.
type file struct {
	Agent        *agentBlock             `hcl:"agent,block"`
	Plugins      *pluginsBlock           `hcl:"plugins,block"`
	Telemetry    *spireconf.Telemetry    `hcl:"telemetry,block"`
	HealthChecks *spireconf.HealthChecks `hcl:"health_checks,block"`
}

type agentBlock struct {
	TrustDomain     spiffeid.TrustDomain `hcl:"trust_domain,optional"`
	DataDir         string               `hcl:"data_dir,optional"`
	ServerAddress   string               `hcl:"server_address,optional"`
	ServerPort      *int                 `hcl:"server_port,optional"`
	ServerAddresses []string             `hcl:"server_addresses,optional"`
	SocketPath      string               `hcl:"socket_path,optional"`
	AdminSocketPath string               `hcl:"admin_socket_path,optional"`
	Sockets         []socketBlock        `hcl:"socket,block"`
	JoinToken       string               `hcl:"join_token,optional"`
	JoinTokenFile   string               `hcl:"join_token_file,optional"`

	TrustBundlePath        string        `hcl:"trust_bundle_path,optional"`
	TrustBundleURL         string        `hcl:"trust_bundle_url,optional"`
	TrustBundleUnixSocket  string        `hcl:"trust_bundle_unix_socket,optional"`
	TrustBundleWorkloadAPI string        `hcl:"trust_bundle_spiffe_workload_api,optional"`
	TrustBundleFormat      string        `hcl:"trust_bundle_format,optional"`
	InsecureBootstrap      bool          `hcl:"insecure_bootstrap,optional"`
	RebootstrapMode        string        `hcl:"rebootstrap_mode,optional"`
	RebootstrapDelay       time.Duration `hcl:"rebootstrap_delay,optional"`

	KeyType            string        `hcl:"workload_x509_svid_key_type,optional"`
	AvailabilityTarget time.Duration `hcl:"availability_target,optional"`
	X509CacheMaxSize   int           `hcl:"x509_svid_cache_max_size,optional"`
	JWTCacheMaxSize    int           `hcl:"jwt_svid_cache_max_size,optional"`

	AuthorizedDelegates           []spiffeid.ID `hcl:"authorized_delegates,optional"`
	AllowUnauthenticatedVerifiers bool          `hcl:"allow_unauthenticated_verifiers,optional"`
	ForeignJWTClaims              []string      `hcl:"allowed_foreign_jwt_claims,optional"`
	DisableWorkloadAPI            bool          `hcl:"disable_workload_api,optional"`
	DisableSDSAPI                 bool          `hcl:"disable_sds_api,optional"`
	SDS                           *sdsBlock     `hcl:"sds,block"`

	LogFile           string   `hcl:"log_file,optional"`
	LogLevel          string   `hcl:"log_level,optional"`
	LogFormat         string   `hcl:"log_format,optional"`
	LogSourceLocation bool     `hcl:"log_source_location,optional"`
	LogSelectors      []string `hcl:"log_selectors,optional"`
	ProfilingEnabled  bool     `hcl:"profiling_enabled,optional"`
	ProfilingPort     int      `hcl:"profiling_port,optional"`
	ProfilingFreq     int      `hcl:"profiling_freq,optional"`
	ProfilingNames    []string `hcl:"profiling_names,optional"`

	Experimental *experimentalBlock `hcl:"experimental,block"`
}

// socketBlock is a socket for some workload alone. SPIRE has none.
type socketBlock struct {
	Name  string `hcl:"name,label,quoted"`
	At    hclconf.Pos
	Path  string `hcl:"path,optional"`
	Mode  string `hcl:"mode,optional"`
	User  string `hcl:"user,optional"`
	Group string `hcl:"group,optional"`
	Only  bool   `hcl:"only,optional"`
}

type sdsBlock struct {
	SVIDName       string `hcl:"default_svid_name,optional"`
	BundleName     string `hcl:"default_bundle_name,optional"`
	AllBundlesName string `hcl:"default_all_bundles_name,optional"`
	PlainCA        bool   `hcl:"disable_spiffe_cert_validation,optional"`
}

type experimentalBlock struct {
	SyncInterval             time.Duration   `hcl:"sync_interval,optional"`
	JWTSVIDCacheHitTimeout   time.Duration   `hcl:"jwt_svid_cache_hit_timeout,optional"`
	UseSyncAuthorizedEntries *bool           `hcl:"use_sync_authorized_entries,optional"`
	RequirePQKEM             bool            `hcl:"require_pq_kem,optional"`
	RateLimit                *rateLimitBlock `hcl:"ratelimit,block"`
	FeatureFlags             []string        `hcl:"feature_flags,optional"`

	_ hclconf.NotYet `names:"broker" instead:"who hands identities to others has them by the delegated identity API, authorized_delegates"`
	_ hclconf.NotYet `names:"named_pipe_name" instead:"it is for Windows: the Workload API's socket is socket_path"`
	_ hclconf.NotYet `names:"admin_named_pipe_name" instead:"it is for Windows: the admin socket is admin_socket_path"`
}

type rateLimitBlock struct {
	FetchX509SVID    int `hcl:"fetch_x509_svid,optional"`
	FetchJWTSVID     int `hcl:"fetch_jwt_svid,optional"`
	FetchX509Bundles int `hcl:"fetch_x509_bundles,optional"`
	FetchJWTBundles  int `hcl:"fetch_jwt_bundles,optional"`
	StreamSecrets    int `hcl:"stream_secrets,optional"`
	FetchSecrets     int `hcl:"fetch_secrets,optional"`
}

// limits are the block's, by their keys, but for those that are off.
func (b *rateLimitBlock) limits() map[string]int {
	if b == nil {
		return nil
	}
	limits := map[string]int{}
	for key, n := range map[string]int{
		"fetch_x509_svid": b.FetchX509SVID, "fetch_jwt_svid": b.FetchJWTSVID, "fetch_x509_bundles": b.FetchX509Bundles,
		"fetch_jwt_bundles": b.FetchJWTBundles, "stream_secrets": b.StreamSecrets, "fetch_secrets": b.FetchSecrets,
	} {
		if n != 0 {
			limits[key] = n
		}
	}
	return limits
}
