package issuercmd

import "github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"

// pluginsBlock has SPIRE's types of plugins.
type pluginsBlock struct {
	DataStore          []spireconf.PluginBlock `hcl:"DataStore,block"`
	KeyManager         []spireconf.PluginBlock `hcl:"KeyManager,block"`
	NodeAttestor       []spireconf.PluginBlock `hcl:"NodeAttestor,block"`
	UpstreamAuthority  []spireconf.PluginBlock `hcl:"UpstreamAuthority,block"`
	CredentialComposer []spireconf.PluginBlock `hcl:"CredentialComposer,block"`
	Notifier           []spireconf.PluginBlock `hcl:"Notifier,block"`
	BundlePublisher    []spireconf.PluginBlock `hcl:"BundlePublisher,block"`
}

type keyManagerDisk struct {
	KeysPath string `hcl:"keys_path,optional"`
}

type upstreamDisk struct {
	CertFilePath   string `hcl:"cert_file_path,optional"`
	KeyFilePath    string `hcl:"key_file_path,optional"`
	BundleFilePath string `hcl:"bundle_file_path,optional"`
}

type upstreamSPIRE struct {
	ServerAddress     string                     `hcl:"server_address,optional"`
	ServerPort        *int                       `hcl:"server_port,optional"`
	WorkloadAPISocket string                     `hcl:"workload_api_socket,optional"`
	Experimental      *upstreamSPIREExperimental `hcl:"experimental,block"`
}

type upstreamSPIREExperimental struct {
	NamedPipeName string `hcl:"workload_api_named_pipe_name,optional"`
	RequirePQKEM  bool   `hcl:"require_pq_kem,optional"`
}

type x509POP struct {
	Mode              string   `hcl:"mode,optional"`
	SPIFFEPrefix      *string  `hcl:"spiffe_prefix,optional"`
	CABundlePath      string   `hcl:"ca_bundle_path,optional"`
	CABundlePaths     []string `hcl:"ca_bundle_paths,optional"`
	AgentPathTemplate string   `hcl:"agent_path_template,optional"`
	MaxIntermediates  *int     `hcl:"max_intermediates,optional"`
	MaxRSAKeySize     *int     `hcl:"max_rsa_key_size,optional"`
	VerifyClientIP    bool     `hcl:"verify_client_ip,optional"`
}

type k8sPSAT struct {
	Clusters []k8sCluster `hcl:"clusters,block"`
}

type k8sCluster struct {
	Name                    string    `hcl:"name,label,quoted"`
	ServiceAccountAllowList []string  `hcl:"service_account_allow_list,optional"`
	Audience                *[]string `hcl:"audience,optional"`
	KubeConfigFile          string    `hcl:"kube_config_file,optional"`
	AllowedNodeLabelKeys    []string  `hcl:"allowed_node_label_keys,optional"`
	AllowedPodLabelKeys     []string  `hcl:"allowed_pod_label_keys,optional"`
	UsePodUIDForAgentID     bool      `hcl:"use_pod_uid_for_agent_id,optional"`
}
