package issuercmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/issuer"
)

// plugins reads the blocks of plugins {} into a configuration of the issuer.
type plugins struct {
	conf *hclconf.File
	cfg  *issuer.Config
}

// plugin is one block, and where its data stand.
type plugin struct {
	kind string
	pluginBlock
	conf *hclconf.File // of the data
	path string        // of the data in it
}

// pluginKind is a type of plugins: those that are built in, and those that only SPIRE has.
type pluginKind struct {
	name    string
	spire   string
	built   map[string]func(*plugins, plugin)
	single  bool
	instead string // to do where one is refused; "" is to remove it
}

// kinds are SPIRE's types of plugins, but for DataStore.
func kinds() []pluginKind {
	return []pluginKind{
		{name: "KeyManager", single: true, spire: "aws_kms azure_key_vault gcp_kms hashicorp_vault", instead: `write KeyManager "disk" {}: private keys are then kept in data_dir`,
			built: map[string]func(*plugins, plugin){"disk": (*plugins).keysOnDisk, "memory": (*plugins).keysInMemory}},
		{name: "NodeAttestor", spire: "aws_iid azure_imds azure_msi gcp_iit http_challenge sshpop tpm_devid",
			built: map[string]func(*plugins, plugin){"join_token": (*plugins).noData, "join_key": (*plugins).noData, "x509pop": (*plugins).x509pop, "k8s_psat": (*plugins).k8spsat}},
		{name: "UpstreamAuthority", single: true, spire: "aws_pca awssecret cert-manager ejbca gcp_cas vault",
			built: map[string]func(*plugins, plugin){"disk": (*plugins).upstreamDisk, "spire": (*plugins).upstreamSPIRE}},
		{name: "CredentialComposer", built: map[string]func(*plugins, plugin){"uniqueid": (*plugins).uniqueID}},
		{name: "Notifier", spire: "gcs_bundle k8sbundle"},
		{name: "BundlePublisher", spire: "aws_rolesanywhere_trustanchor aws_s3 azure_blob gcp_cloudstorage k8s_configmap"},
	}
}

func (b *pluginsBlock) of(kind string) []pluginBlock {
	switch kind {
	case "KeyManager":
		return b.KeyManager
	case "NodeAttestor":
		return b.NodeAttestor
	case "UpstreamAuthority":
		return b.UpstreamAuthority
	case "CredentialComposer":
		return b.CredentialComposer
	case "Notifier":
		return b.Notifier
	default:
		return b.BundlePublisher
	}
}

// read takes every block that is enabled. Its faults are kept in the file.
func (ps *plugins) read(b *pluginsBlock) {
	if b == nil {
		return
	}
	ps.dataStore(b.DataStore)
	for _, kind := range kinds() {
		var first string
		seen := map[string]bool{}
		for _, block := range b.of(kind.name) {
			title := fmt.Sprintf("plugins.%s %q", kind.name, block.Name)
			make := kind.built[block.Name]
			switch {
			case seen[block.Name]:
				ps.conf.Errorf(block.At, "%s is given twice", title)
			case block.Enabled != nil && !*block.Enabled:
			case block.Cmd != "":
				ps.conf.Errorf(block.At, "%s: plugin_cmd: programs of others can't be plugged in, only what is built in works; %s", title, kind.advice())
			case make == nil:
				ps.conf.Errorf(block.At, "%s: %s", title, kind.refusal(block.Name))
			case kind.single && first != "":
				ps.conf.Errorf(block.At, "%s: there is %q already, and only one works at a time: remove one", title, first)
			default:
				first = block.Name
				make(ps, plugin{kind: kind.name, pluginBlock: block})
			}
			seen[block.Name] = true
		}
	}
}

func (k pluginKind) advice() string {
	if k.instead != "" {
		return k.instead
	}
	return "remove it"
}

func (k pluginKind) refusal(name string) string {
	var built []string
	for b := range k.built {
		built = append(built, b)
	}
	slices.Sort(built)
	switch {
	case slices.Contains(strings.Fields(k.spire), name) && len(built) > 0:
		return fmt.Sprintf("known to SPIRE, not supported yet; supported: %s; %s", strings.Join(built, ", "), k.advice())
	case slices.Contains(strings.Fields(k.spire), name):
		return "known to SPIRE, not supported yet; remove it"
	}
	if near := suggest.Closest(name, built); near != "" {
		return fmt.Sprintf("unknown; did you mean %q?", near)
	}
	if len(built) == 0 {
		return "unknown; remove it"
	}
	return "unknown; supported: " + strings.Join(built, ", ")
}

// dataStore is met in each file of SPIRE's, and does nothing here.
func (ps *plugins) dataStore(blocks []pluginBlock) {
	for _, b := range blocks {
		switch {
		case b.Enabled != nil && !*b.Enabled:
		case b.Cmd != "":
			ps.conf.Errorf(b.At, "plugins.DataStore %q: plugin_cmd: there is one store, etcd below data_dir; remove it", b.Name)
		case b.Name != "sql":
			ps.conf.Errorf(b.At, "plugins.DataStore %q: unknown; records are kept in etcd below data_dir; remove it", b.Name)
		default:
			ps.conf.Notef(b.At, "plugins.DataStore %q is not used: records are kept in etcd, below data_dir; take those of a running spire-server over with \"lanyard issuer import\"", b.Name)
		}
	}
}

// data decodes what p is configured with, in place or in a file of its own, and tells whether that went well.
func (ps *plugins) data(p *plugin, target any) bool {
	p.conf, p.path = ps.conf, fmt.Sprintf("plugins.%s.%s.plugin_data", p.kind, p.Name)
	if p.DataFile == "" {
		before := ps.conf.Faults()
		ps.conf.DecodeBody(p.Data, target)
		return ps.conf.Faults() == before
	}
	if p.Data != nil {
		ps.conf.Errorf(p.At, "plugins.%s %q has both plugin_data and plugin_data_file: remove one", p.kind, p.Name)
		return false
	}
	other, err := hclconf.Read(p.DataFile, nil)
	if err != nil {
		ps.conf.Errorf(p.At, "plugins.%s %q: plugin_data_file: %v", p.kind, p.Name, err)
		return false
	}
	other.Decode(target)
	p.conf, p.path = other, ""
	if other.Err() != nil {
		ps.conf.Include(other)
		return false
	}
	return true
}

// wrong adds a fault of one setting of p; of p itself, if key is "". What is said of a key follows it after a colon, but for
// "is missing".
func (ps *plugins) wrong(p plugin, key, format string, args ...any) {
	path, at := p.path+"."+key, p.conf.At(p.path+"."+key)
	if p.path == "" {
		path, at = key, p.conf.At(key)
	}
	if at == (hclconf.Pos{}) && p.conf == ps.conf {
		at = p.At
	}
	text := fmt.Sprintf(format, args...)
	switch path = strings.Trim(path, "."); {
	case strings.HasPrefix(text, "is missing"):
		text = path + " " + text
	case path != "":
		text = path + ": " + text
	}
	if p.conf == ps.conf {
		ps.conf.Errorf(at, "%s", text)
		return
	}
	one := p.conf.Sibling()
	one.Errorf(at, "%s", text)
	ps.conf.Include(one)
}
