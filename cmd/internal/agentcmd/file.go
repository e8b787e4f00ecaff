package agentcmd

import (
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// file is the agent's configuration file: SPIRE's agent.conf as far as Lanyard does it, and all its other keys by name.
type file struct {
	Agent   *agentBlock   `hcl:"agent,block"`
	Plugins *pluginsBlock `hcl:"plugins,block"`

	_ hclconf.NotYet `names:"telemetry health_checks"`
}

type agentBlock struct {
	TrustDomain       spiffeid.TrustDomain `hcl:"trust_domain,optional"`
	DataDir           string               `hcl:"data_dir,optional"`
	ServerAddress     string               `hcl:"server_address,optional"`
	ServerPort        *int                 `hcl:"server_port,optional"`
	SocketPath        string               `hcl:"socket_path,optional"`
	AdminSocketPath   string               `hcl:"admin_socket_path,optional"`
	JoinToken         string               `hcl:"join_token,optional"`
	JoinTokenFile     string               `hcl:"join_token_file,optional"`
	TrustBundlePath   string               `hcl:"trust_bundle_path,optional"`
	InsecureBootstrap bool                 `hcl:"insecure_bootstrap,optional"`
	KeyType           string               `hcl:"workload_x509_svid_key_type,optional"`
	X509CacheMaxSize  int                  `hcl:"x509_svid_cache_max_size,optional"`
	JWTCacheMaxSize   int                  `hcl:"jwt_svid_cache_max_size,optional"`
	ForeignJWTClaims  []string             `hcl:"allowed_foreign_jwt_claims,optional"`
	SDS               *sdsBlock            `hcl:"sds,block"`
	Experimental      *experimentalBlock   `hcl:"experimental,block"`

	LogFile           string `hcl:"log_file,optional"`
	LogLevel          string `hcl:"log_level,optional"`
	LogFormat         string `hcl:"log_format,optional"`
	LogSourceLocation bool   `hcl:"log_source_location,optional"`

	_ hclconf.NotYet `names:"trust_bundle_url trust_bundle_unix_socket trust_bundle_spiffe_workload_api trust_bundle_format"`
	_ hclconf.NotYet `names:"rebootstrap_mode rebootstrap_delay availability_target authorized_delegates"`
	_ hclconf.NotYet `names:"allow_unauthenticated_verifiers disable_workload_api disable_sds_api log_selectors"`
	_ hclconf.NotYet `names:"profiling_enabled profiling_port profiling_freq profiling_names"`
}

type sdsBlock struct {
	SVIDName       string `hcl:"default_svid_name,optional"`
	BundleName     string `hcl:"default_bundle_name,optional"`
	AllBundlesName string `hcl:"default_all_bundles_name,optional"`
	PlainCA        bool   `hcl:"disable_spiffe_cert_validation,optional"`
}

type experimentalBlock struct {
	SyncInterval time.Duration `hcl:"sync_interval,optional"`

	_ hclconf.NotYet `names:"jwt_svid_cache_hit_timeout use_sync_authorized_entries require_pq_kem ratelimit broker feature_flags"`
	_ hclconf.NotYet `names:"named_pipe_name admin_named_pipe_name" instead:"there is no Windows agent"`
}

type pluginsBlock struct {
	KeyManager       []pluginBlock `hcl:"KeyManager,block"`
	NodeAttestor     []pluginBlock `hcl:"NodeAttestor,block"`
	WorkloadAttestor []pluginBlock `hcl:"WorkloadAttestor,block"`

	_ hclconf.NotYet `names:"SVIDStore"`
}

type pluginBlock struct {
	Name string `hcl:"name,label"`
	At   hclconf.Pos
	Data *hclconf.Body `hcl:"plugin_data,block"`

	_ hclconf.NotYet `names:"plugin_cmd plugin_args plugin_checksum plugin_data_file enabled"`
}

type diskData struct {
	Directory string `hcl:"directory,optional"`
}

// unixData is the configuration of the workload attestor "unix".
type unixData struct {
	DiscoverWorkloadPath bool  `hcl:"discover_workload_path,optional"`
	WorkloadSizeLimit    int64 `hcl:"workload_size_limit,optional"`
}

// check accepts the plugins whose work Lanyard does, with the settings it does it with, and gives the attestors'.
func (p *pluginsBlock) check(f *hclconf.File, dataDir string) (unix unixData, node chosenAttestor) {
	if p == nil {
		return unix, node
	}
	for _, b := range p.KeyManager {
		if b.Name != "disk" {
			f.Errorf(b.At, "plugins.KeyManager %q: known to SPIRE, not supported yet; write KeyManager \"disk\", or remove it: keys are kept in data_dir", b.Name)
			continue
		}
		var data diskData
		f.DecodeBody(b.Data, &data)
		if data.Directory != "" && !samePath(data.Directory, dataDir) {
			f.Errorf(f.At("plugins.KeyManager.disk.plugin_data.directory"), "plugins.KeyManager.disk.plugin_data.directory %s: keys are kept in data_dir, %s; write that, or remove it", data.Directory, dataDir)
		}
	}
	node = p.nodeAttestor(f)
	for _, b := range p.WorkloadAttestor {
		if b.Name != "unix" {
			f.Errorf(b.At, "plugins.WorkloadAttestor %q: known to SPIRE, not supported yet; workloads are known by unix selectors: remove it", b.Name)
			continue
		}
		f.DecodeBody(b.Data, &unix)
	}
	return unix, node
}

func samePath(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}
