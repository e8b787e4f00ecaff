package issuercmd

import (
	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/issuer"
)

// plugins reads the blocks of plugins {} into a configuration of the issuer.
type plugins struct {
	conf *hclconf.File
	cfg  *issuer.Config
}

// kinds are SPIRE's types of plugins, but for DataStore.
func (ps *plugins) kinds(b *pluginsBlock) []spireconf.PluginKind {
	return []spireconf.PluginKind{
		{Name: "KeyManager", Blocks: b.KeyManager, Single: true, SPIRE: "aws_kms azure_key_vault gcp_kms hashicorp_vault", Instead: `write KeyManager "disk" {}: private keys are then kept in data_dir`,
			Built: map[string]func(*spireconf.Plugin){"disk": ps.keysOnDisk, "memory": ps.keysInMemory}},
		{Name: "NodeAttestor", Blocks: b.NodeAttestor, SPIRE: "aws_iid azure_imds azure_msi gcp_iit http_challenge sshpop tpm_devid",
			Built: map[string]func(*spireconf.Plugin){"join_token": noData, "join_key": noData, "x509pop": ps.x509pop, "k8s_psat": ps.k8spsat}},
		{Name: "UpstreamAuthority", Blocks: b.UpstreamAuthority, Single: true, SPIRE: "aws_pca awssecret cert-manager ejbca gcp_cas vault",
			Built: map[string]func(*spireconf.Plugin){"disk": ps.upstreamDisk, "spire": ps.upstreamSPIRE}},
		{Name: "CredentialComposer", Blocks: b.CredentialComposer, Built: map[string]func(*spireconf.Plugin){"uniqueid": ps.uniqueID}},
		{Name: "Notifier", Blocks: b.Notifier, SPIRE: "gcs_bundle k8sbundle"},
		{Name: "BundlePublisher", Blocks: b.BundlePublisher, SPIRE: "aws_rolesanywhere_trustanchor aws_s3 azure_blob gcp_cloudstorage k8s_configmap"},
	}
}

// read takes every block that is enabled. Its faults are kept in the file.
func (ps *plugins) read(b *pluginsBlock) {
	if b == nil {
		return
	}
	ps.dataStore(b.DataStore)
	spireconf.ReadPlugins(ps.conf, ps.kinds(b)...)
}

// dataStore is met in each file of SPIRE's, and does nothing here.
func (ps *plugins) dataStore(blocks []spireconf.PluginBlock) {
	for _, b := range blocks {
		switch {
		case b.Off():
		case b.Cmd != "":
			ps.conf.Errorf(b.At, "plugins.DataStore %q: plugin_cmd: there is one store, etcd below data_dir; remove it", b.Name)
		case b.Name != "sql":
			ps.conf.Errorf(b.At, "plugins.DataStore %q: unknown; records are kept in etcd below data_dir; remove it", b.Name)
		default:
			ps.conf.Notef(b.At, "plugins.DataStore %q is not used: records are kept in etcd, below data_dir; take those of a running spire-server over with \"lanyard issuer import\"", b.Name)
		}
	}
}
