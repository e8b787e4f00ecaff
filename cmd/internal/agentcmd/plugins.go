package agentcmd

import (
	"cmp"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/docker"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/k8s"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/systemd"
)

// plugins reads the blocks of plugins {} into a configuration of the agent.
type plugins struct {
	conf     *hclconf.File
	settings *settings
	getenv   func(string) string
	node     chosenAttestor
}

// read takes every block that is enabled. Its faults are kept in the file.
func (ps *plugins) read(b *pluginsBlock) {
	if b == nil {
		return
	}
	type built = map[string]func(*spireconf.Plugin)
	spireconf.ReadPlugins(ps.conf,
		spireconf.PluginKind{Name: "KeyManager", Blocks: b.KeyManager, Single: true, Instead: `write KeyManager "disk" {}: private keys are then kept in data_dir`,
			Built: built{"disk": ps.keysOnDisk, "memory": ps.keysInMemory}},
		spireconf.PluginKind{Name: "NodeAttestor", Blocks: b.NodeAttestor, Single: true, SPIRE: "aws_iid azure_imds azure_msi gcp_iit http_challenge sshpop tpm_devid",
			Instead: "write one of these",
			Built:   built{nodeattest.JoinToken: ps.joinToken, nodeattest.JoinKey: ps.joinKey, nodeattest.X509POP: ps.x509pop, nodeattest.K8sPSAT: ps.k8sPSAT}},
		spireconf.PluginKind{Name: "WorkloadAttestor", Blocks: b.WorkloadAttestor, SPIRE: "slurm windows",
			Built: built{"unix": ps.unix, "docker": ps.docker, "k8s": ps.k8s, "systemd": ps.systemd}},
		spireconf.PluginKind{Name: "SVIDStore", Blocks: b.SVIDStore, SPIRE: "aws_secretsmanager gcp_secretmanager",
			Instead: "workloads take their SVIDs from the Workload API; remove it"},
	)
	for _, block := range b.WorkloadAttestor {
		if block.Name == "unix" && block.Off() {
			ps.conf.Errorf(block.At, "plugins.WorkloadAttestor \"unix\": enabled: the kernel is always asked who calls: remove the block")
		}
	}
}

func (ps *plugins) keysOnDisk(p *spireconf.Plugin) {
	var data diskData
	if p.Decode(&data) && data.Directory != "" && !samePath(data.Directory, ps.settings.agent.DataDir) {
		p.Errorf("directory", "%s: keys are kept in data_dir, %s; write that, or remove it", data.Directory, ps.settings.agent.DataDir)
	}
}

func samePath(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}

func (ps *plugins) keysInMemory(p *spireconf.Plugin) {
	if p.Decode(&struct{}{}) {
		ps.settings.agent.MemoryKeys = true
	}
}

func (ps *plugins) unix(p *spireconf.Plugin) {
	var data unixData
	if p.Decode(&data) {
		c := &ps.settings.agent
		c.DiscoverWorkloadPath, c.WorkloadSizeLimit = data.DiscoverWorkloadPath, data.WorkloadSizeLimit
	}
}

// attest has the agent make a workload attestor when it runs: attestors log.
func (ps *plugins) attest(newPlugin newAttestor) {
	ps.settings.attestors = append(ps.settings.attestors, newPlugin)
}

func (ps *plugins) docker(p *spireconf.Plugin) {
	var data dockerData
	if !p.Decode(&data) {
		return
	}
	noteLocator(p, data.NewLocator, len(data.Matchers) > 0)
	cfg := docker.Config{
		Socket: unixPath(p, "docker_socket_path", data.SocketPath), PodmanSocket: unixPath(p, "podman_socket_path", data.PodmanSocketPath),
		Version: data.Version, Matchers: data.Matchers,
	}
	_, err := docker.New(cfg)
	p.Wrong(err)
	ps.attest(func(log *slog.Logger) (workloadattest.Plugin, error) {
		cfg.Log = log
		return docker.New(cfg)
	})
}

// unixPath is the path of a daemon's socket, which SPIRE writes as an address; "" where none is set.
func unixPath(p *spireconf.Plugin, key, address string) string {
	path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
	if path != "" && !filepath.IsAbs(path) {
		p.Errorf(key, "%q: want a socket of this machine, such as \"unix:///var/run/docker.sock\": who is on the other side of a network can't be known", address)
		return ""
	}
	return path
}

// noteLocator tells what of the settings about finding containers does nothing.
func noteLocator(p *spireconf.Plugin, newLocator *bool, matchers bool) {
	if newLocator != nil && !matchers {
		p.Notef("use_new_container_locator", "is not used: containers are found in all known layouts of cgroups")
	}
	if p.Has("verbose_container_locator_logs") {
		p.Notef("verbose_container_locator_logs", "is not used: \"lanyard agent explain -pid N\" shows the container of a process")
	}
}

// defaultNodeNameEnv is SPIRE's.
const defaultNodeNameEnv = "MY_NODE_NAME"

func (ps *plugins) k8s(p *spireconf.Plugin) {
	var data k8sData
	if !p.Decode(&data) {
		return
	}
	noteLocator(p, data.NewLocator, false)
	cfg := k8s.Config{
		KubeletReadOnlyPort: data.ReadOnlyPort, KubeletSecurePort: data.SecurePort, NodeName: cmp.Or(data.NodeName, ps.getenv(cmp.Or(data.NodeNameEnv, defaultNodeNameEnv))),
		KubeletCAPath: data.KubeletCAPath, SkipKubeletVerification: data.SkipKubeletVerification, TokenPath: data.TokenPath,
		CertificatePath: data.CertificatePath, PrivateKeyPath: data.PrivateKeyPath, UseAnonymousAuthentication: data.UseAnonymousAuthentication,
		ReloadInterval: data.ReloadInterval, MaxPollAttempts: data.MaxPollAttempts, PollRetryInterval: data.PollRetryInterval,
		DisableContainerSelectors: data.DisableContainerSelectors, EnableNamespaceLabels: data.EnableNamespaceLabels,
	}
	for _, fault := range cfg.Validate() {
		p.Wrong(fault)
	}
	if data.NodeNameEnv != "" && cfg.NodeName == "" {
		p.Notef("node_name_env", "$%s is not set: the kubelet is called 127.0.0.1", data.NodeNameEnv)
	}
	ps.attest(func(log *slog.Logger) (workloadattest.Plugin, error) {
		cfg.Log = log
		return k8s.New(cfg), nil
	})
}

func (ps *plugins) systemd(p *spireconf.Plugin) {
	if p.Decode(&struct{}{}) {
		ps.attest(func(*slog.Logger) (workloadattest.Plugin, error) { return systemd.New(systemd.Config{}), nil })
	}
}
