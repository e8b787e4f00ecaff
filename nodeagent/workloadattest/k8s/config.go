package k8s

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Of SPIRE.
const (
	defaultSecurePort        = 10250
	defaultMaxPollAttempts   = 60
	defaultPollRetryInterval = 500 * time.Millisecond
	defaultReloadInterval    = time.Minute
	serviceAccountDir        = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// Config is how the kubelet is reached; each field is SPIRE's key of that name.
// The zero value is usable in a pod of the host's network.
type Config struct {
	KubeletReadOnlyPort int // plain HTTP on 127.0.0.1; 0: the secure port
	KubeletSecurePort   int // 0: 10250
	// NodeName is the host that the kubelet is called by and has a certificate
	// for. "": 127.0.0.1, and a certificate for any name.
	NodeName string

	KubeletCAPath              string // PEM; "": the service account's ca.crt
	SkipKubeletVerification    bool
	TokenPath                  string // "": the service account's token
	CertificatePath            string // with PrivateKeyPath, instead of a token
	PrivateKeyPath             string
	UseAnonymousAuthentication bool
	// ReloadInterval is how old what was read of these files may be; 0: a minute.
	// After a refusal they are read at once.
	ReloadInterval time.Duration

	// MaxPollAttempts is how often a container is looked for that the kubelet does
	// not list yet, 0: 60, PollRetryInterval the least time between two requests,
	// 0: half a second. Whoever attests may wait for less.
	MaxPollAttempts   int
	PollRetryInterval time.Duration

	// DisableContainerSelectors leaves out those of the container, and then a pod
	// is enough: its container may be starting still.
	DisableContainerSelectors bool
	// EnableNamespaceLabels asks the API server for the labels of the pod's
	// namespace: the agent's service account must be allowed to get namespaces.
	EnableNamespaceLabels bool

	// Log may be nil.
	Log *slog.Logger
}

// Validate says all that is wrong with the configuration; no file is read.
func (c Config) Validate() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, port := range []struct {
		key  string
		port int
	}{{"kubelet_read_only_port", c.KubeletReadOnlyPort}, {"kubelet_secure_port", c.KubeletSecurePort}} {
		if port.port < 0 || port.port > 65535 {
			wrong("%s %d is not a port: want 1 to 65535", port.key, port.port)
		}
	}
	if c.KubeletReadOnlyPort > 0 && c.KubeletSecurePort > 0 {
		wrong("cannot use both the read-only and secure port: remove kubelet_read_only_port or kubelet_secure_port")
	}
	switch {
	case c.CertificatePath != "" && c.PrivateKeyPath == "":
		errs = append(errs, errNoPrivateKey)
	case c.CertificatePath == "" && c.PrivateKeyPath != "":
		errs = append(errs, errNoCertificate)
	}
	if c.UseAnonymousAuthentication && (c.TokenPath != "" || c.CertificatePath != "" || c.PrivateKeyPath != "") {
		wrong("use_anonymous_authentication excludes token_path, certificate_path and private_key_path")
	}
	if c.MaxPollAttempts < 0 {
		wrong("max_poll_attempts %d is below zero", c.MaxPollAttempts)
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"poll_retry_interval", c.PollRetryInterval}, {"reload_interval", c.ReloadInterval}} {
		if d.value < 0 {
			wrong("%s %v is below zero", d.key, d.value)
		}
	}
	return errs
}

var (
	errNoPrivateKey  = errors.New("the private key path is required with the certificate path")
	errNoCertificate = errors.New("the certificate path is required with the private key path")
)

func (c Config) withDefaults() Config {
	if c.KubeletReadOnlyPort == 0 && c.KubeletSecurePort == 0 {
		c.KubeletSecurePort = defaultSecurePort
	}
	if c.KubeletCAPath == "" {
		c.KubeletCAPath = serviceAccountDir + "/ca.crt"
	}
	if c.TokenPath == "" {
		c.TokenPath = serviceAccountDir + "/token"
	}
	if c.ReloadInterval == 0 {
		c.ReloadInterval = defaultReloadInterval
	}
	if c.MaxPollAttempts == 0 {
		c.MaxPollAttempts = defaultMaxPollAttempts
	}
	if c.PollRetryInterval == 0 {
		c.PollRetryInterval = defaultPollRetryInterval
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
