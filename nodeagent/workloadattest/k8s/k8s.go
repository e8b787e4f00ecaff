// Package k8s attests what Kubernetes runs: it finds a process's pod by its
// cgroup and asks the node's kubelet what the pod is. It does not talk to the
// API server, but for the labels of namespaces.
package k8s

import (
	"context"
	"log/slog"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Config is how the kubelet is reached; each field is SPIRE's key of that name.
type Config struct {
	KubeletReadOnlyPort int // 0: the secure port
	KubeletSecurePort   int // 0: 10250
	// NodeName is the host that the kubelet is called by and has a certificate
	// for. "": 127.0.0.1, whose certificate may have any name.
	NodeName string

	KubeletCAPath              string // "": the service account's ca.crt
	SkipKubeletVerification    bool
	TokenPath                  string // "": the service account's token
	CertificatePath            string // with PrivateKeyPath, instead of a token
	PrivateKeyPath             string
	UseAnonymousAuthentication bool
	// ReloadInterval is how old may be what was read of these files; 0: a minute.
	ReloadInterval time.Duration

	MaxPollAttempts   int           // 0: 60
	PollRetryInterval time.Duration // 0: half a second

	DisableContainerSelectors bool
	// EnableNamespaceLabels asks the API server for them.
	EnableNamespaceLabels bool

	Log *slog.Logger
}

// Validate says all that is wrong with the configuration; no file is read.
func (c Config) Validate() []error { return nil }

// Plugin is a [workloadattest.Plugin].
type Plugin struct{ cfg Config }

// New returns a plugin; it asks nothing before the first process.
func New(cfg Config) *Plugin { return &Plugin{cfg: cfg} }

// Name is the type of its selectors.
func (*Plugin) Name() string { return "k8s" }

// Attest returns the selectors of a process that runs in a pod.
func (*Plugin) Attest(context.Context, *workloadattest.Process) ([]registration.Selector, error) {
	return nil, nil
}

// Close ends what waits for the kubelet.
func (*Plugin) Close() error { return nil }
