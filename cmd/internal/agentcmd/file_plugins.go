package agentcmd

import (
	"time"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// pluginsBlock has SPIRE's types of plugins.
type pluginsBlock struct {
	KeyManager       []spireconf.PluginBlock `hcl:"KeyManager,block"`
	NodeAttestor     []spireconf.PluginBlock `hcl:"NodeAttestor,block"`
	WorkloadAttestor []spireconf.PluginBlock `hcl:"WorkloadAttestor,block"`
	SVIDStore        []spireconf.PluginBlock `hcl:"SVIDStore,block"`
}

type diskData struct {
	Directory string `hcl:"directory,optional"`
}

// x509popData, k8sPSATData and joinKeyData are the configurations of node attestors: SPIRE's, and the last our own.
type x509popData struct {
	PrivateKeyPath       string `hcl:"private_key_path,optional"`
	CertificatePath      string `hcl:"certificate_path,optional"`
	IntermediatesPath    string `hcl:"intermediates_path,optional"`
	SPIFFEEndpointSocket string `hcl:"spiffe_endpoint_socket,optional"`
}

type k8sPSATData struct {
	Cluster   string `hcl:"cluster,optional"`
	TokenPath string `hcl:"token_path,optional"`
}

type joinKeyData struct {
	TokenFile string `hcl:"token_file,optional"`
}

// unixData, dockerData and k8sData are the configurations of workload attestors; systemd has none.
type unixData struct {
	DiscoverWorkloadPath bool  `hcl:"discover_workload_path,optional"`
	WorkloadSizeLimit    int64 `hcl:"workload_size_limit,optional"`
}

type dockerData struct {
	SocketPath         string   `hcl:"docker_socket_path,optional"`
	Version            string   `hcl:"docker_version,optional"`
	Matchers           []string `hcl:"container_id_cgroup_matchers,optional"`
	NewLocator         *bool    `hcl:"use_new_container_locator,optional"`
	VerboseLocatorLogs bool     `hcl:"verbose_container_locator_logs,optional"`
	PodmanSocketPath   string   `hcl:"podman_socket_path,optional"`

	_ hclconf.NotYet `names:"podman_socket_path_template" instead:"a user's own Podman would say of its containers what the user wants: only root's is asked"`
	_ hclconf.NotYet `names:"sigstore" instead:"selectors name the image by its digest, image_config_digest"`
	_ hclconf.NotYet `names:"docker_host" instead:"it is for Windows: the daemon's socket is docker_socket_path"`
}

type k8sData struct {
	ReadOnlyPort               int           `hcl:"kubelet_read_only_port,optional"`
	SecurePort                 int           `hcl:"kubelet_secure_port,optional"`
	MaxPollAttempts            int           `hcl:"max_poll_attempts,optional"`
	PollRetryInterval          time.Duration `hcl:"poll_retry_interval,optional"`
	KubeletCAPath              string        `hcl:"kubelet_ca_path,optional"`
	SkipKubeletVerification    bool          `hcl:"skip_kubelet_verification,optional"`
	TokenPath                  string        `hcl:"token_path,optional"`
	CertificatePath            string        `hcl:"certificate_path,optional"`
	PrivateKeyPath             string        `hcl:"private_key_path,optional"`
	UseAnonymousAuthentication bool          `hcl:"use_anonymous_authentication,optional"`
	NodeNameEnv                string        `hcl:"node_name_env,optional"`
	NodeName                   string        `hcl:"node_name,optional"`
	ReloadInterval             time.Duration `hcl:"reload_interval,optional"`
	DisableContainerSelectors  bool          `hcl:"disable_container_selectors,optional"`
	EnableNamespaceLabels      bool          `hcl:"enable_namespace_labels,optional"`
	NewLocator                 *bool         `hcl:"use_new_container_locator,optional"`
	VerboseLocatorLogs         bool          `hcl:"verbose_container_locator_logs,optional"`

	_ hclconf.NotYet `names:"disable_kubelet_client" instead:"pods are known by what the kubelet says of them"`
	_ hclconf.NotYet `names:"sigstore" instead:"selectors name images by their digest, pod-image"`
	_ hclconf.NotYet `names:"experimental" instead:"it is for the Broker API"`
}
