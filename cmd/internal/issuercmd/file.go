package issuercmd

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// file is the issuer's configuration file: SPIRE's server.conf as far as Lanyard does it, and all its other keys by name.
type file struct {
	Server  *serverBlock  `hcl:"server,block"`
	Plugins *pluginsBlock `hcl:"plugins,block"`

	_ hclconf.NotYet `names:"telemetry health_checks"`
}

type serverBlock struct {
	TrustDomain spiffeid.TrustDomain `hcl:"trust_domain,optional"`
	DataDir     string               `hcl:"data_dir,optional"`
	BindAddress string               `hcl:"bind_address,optional"`
	BindPort    *int                 `hcl:"bind_port,optional"`
	SocketPath  string               `hcl:"socket_path,optional"`
	AdminIDs    []spiffeid.ID        `hcl:"admin_ids,optional"`

	CATTL              time.Duration   `hcl:"ca_ttl,optional"`
	CASubject          *caSubjectBlock `hcl:"ca_subject,block"`
	DefaultX509SVIDTTL time.Duration   `hcl:"default_x509_svid_ttl,optional"`
	AgentTTL           time.Duration   `hcl:"agent_ttl,optional"`

	LogFile           string `hcl:"log_file,optional"`
	LogLevel          string `hcl:"log_level,optional"`
	LogFormat         string `hcl:"log_format,optional"`
	LogSourceLocation bool   `hcl:"log_source_location,optional"`

	_ hclconf.NotYet `names:"ca_key_type jwt_key_type jwt_issuer default_jwt_svid_ttl disable_jwt_svids audit_log_enabled federation experimental"`
	_ hclconf.NotYet `names:"prune_attested_nodes_expired_for prune_attested_nodes_batch_size prune_tofu_nodes max_attested_node_info_staleness"`
	_ hclconf.NotYet `names:"ratelimit proxy_protocol_trusted_cidrs profiling_enabled profiling_port profiling_freq profiling_names"`
}

type caSubjectBlock struct {
	Country      []string `hcl:"country,optional"`
	Organization []string `hcl:"organization,optional"`
	CommonName   string   `hcl:"common_name,optional"`
}

type pluginsBlock struct {
	KeyManager   []pluginBlock `hcl:"KeyManager,block"`
	NodeAttestor []pluginBlock `hcl:"NodeAttestor,block"`

	_ hclconf.NotYet `names:"DataStore" instead:"records are kept in data_dir, with no database to run"`
	_ hclconf.NotYet `names:"UpstreamAuthority Notifier BundlePublisher CredentialComposer"`
}

type pluginBlock struct {
	Name string `hcl:"name,label"`
	At   hclconf.Pos
	Data *hclconf.Body `hcl:"plugin_data,block"`

	_ hclconf.NotYet `names:"plugin_cmd plugin_args plugin_checksum plugin_data_file enabled"`
}

type diskData struct {
	KeysPath string `hcl:"keys_path,optional"`
}

// checkPlugins accepts the plugins whose work Lanyard does, with the settings it does it with.
func (p *pluginsBlock) check(f *hclconf.File, keysPath string) {
	if p == nil {
		return
	}
	for _, b := range p.KeyManager {
		if b.Name != "disk" {
			f.Errorf(b.At, "plugins.KeyManager %q: known to SPIRE, not supported yet; write KeyManager \"disk\", or remove it: keys are kept in data_dir", b.Name)
			continue
		}
		var data diskData
		f.DecodeBody(b.Data, &data)
		if data.KeysPath != "" && !samePath(data.KeysPath, keysPath) {
			f.Errorf(f.At("plugins.KeyManager.disk.plugin_data.keys_path"), "plugins.KeyManager.disk.plugin_data.keys_path %s: keys are kept in %s; write that, or remove it", data.KeysPath, keysPath)
		}
	}
	for _, b := range p.NodeAttestor {
		if b.Name != "join_token" {
			f.Errorf(b.At, "plugins.NodeAttestor %q: known to SPIRE, not supported yet; agents join by token: remove it", b.Name)
			continue
		}
		f.DecodeBody(b.Data, &struct{}{})
	}
}
