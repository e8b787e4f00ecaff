package sidecarcmd

import (
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// file is the sidecar's configuration file. Its keys are those of setting.Error; see configs/sidecar.hcl for what they mean.
type file struct {
	LogLevel          string         `hcl:"log_level,optional"`
	LogFormat         string         `hcl:"log_format,optional"`
	LogFile           string         `hcl:"log_file,optional"`
	LogSourceLocation bool           `hcl:"log_source_location,optional"`
	Syslog            bool           `hcl:"syslog,optional"`
	Quiet             []string       `hcl:"quiet,optional"`
	ShutdownTimeout   *time.Duration `hcl:"shutdown_timeout,optional"`
	DrainIdle         *time.Duration `hcl:"drain_idle,optional"`
	WorkloadAPI       string         `hcl:"workload_api,optional"`
	DisableLandlock   bool           `hcl:"disable_landlock,optional"`

	Status  *statusBlock  `hcl:"status,block"`
	Metrics *metricsBlock `hcl:"metrics,block"`
	Tunnels []tunnelBlock `hcl:"tunnel,block"`
}

type statusBlock struct {
	Listen   string `hcl:"listen"`
	PProf    bool   `hcl:"pprof,optional"`
	Shutdown bool   `hcl:"shutdown,optional"`
}

type metricsBlock struct {
	Prefix   string         `hcl:"prefix,optional"`
	Graphite string         `hcl:"graphite,optional"`
	URL      string         `hcl:"url,optional"`
	Interval *time.Duration `hcl:"interval,optional"`
}

type tunnelBlock struct {
	Name string `hcl:"name,label,quoted"`
	At   hclconf.Pos

	Direction           string   `hcl:"direction"`
	Listen              string   `hcl:"listen"`
	Target              string   `hcl:"target"`
	UnsafeListen        bool     `hcl:"unsafe_listen,optional"`
	UnsafeTarget        bool     `hcl:"unsafe_target,optional"`
	ServerName          string   `hcl:"server_name,optional"`
	TargetStatus        string   `hcl:"target_status,optional"`
	Via                 string   `hcl:"via,optional"`
	ProxyProtocol       string   `hcl:"proxy_protocol,optional"`
	AcceptProxyProtocol []string `hcl:"accept_proxy_protocol,optional"`
	ALPN                []string `hcl:"alpn,optional"`
	SocketMode          string   `hcl:"socket_mode,optional"`
	ReusePort           bool     `hcl:"reuse_port,optional"`
	SkipResolve         bool     `hcl:"skip_resolve,optional"`

	Identity *identityBlock `hcl:"identity,block"`
	Policy   *policyBlock   `hcl:"policy,block"`
	Timeouts *timeoutsBlock `hcl:"timeouts,block"`
	Limits   *limitsBlock   `hcl:"limits,block"`
	TCP      *tcpBlock      `hcl:"tcp,block"`
	TLS      *tlsBlock      `hcl:"tls,block"`
}

type identityBlock struct {
	WorkloadAPI   string             `hcl:"workload_api,optional"`
	SPIFFEID      string             `hcl:"spiffe_id,optional"`
	Hint          string             `hcl:"hint,optional"`
	Cert          string             `hcl:"cert,optional"`
	Key           string             `hcl:"key,optional"`
	CACert        string             `hcl:"ca_cert,optional"`
	Keystore      string             `hcl:"keystore,optional"`
	StorePassFile string             `hcl:"store_pass_file,optional"`
	None          bool               `hcl:"none,optional"`
	TrustBundles  []trustBundleBlock `hcl:"trust_bundle,block"`
	PKCS11        *pkcs11Block       `hcl:"pkcs11,block"`
	ACME          *acmeBlock         `hcl:"acme,block"`
}

type trustBundleBlock struct {
	TrustDomain string `hcl:"trust_domain,label,quoted"`
	At          hclconf.Pos
	File        string `hcl:"file"`
}

type pkcs11Block struct {
	Module     string `hcl:"module"`
	TokenLabel string `hcl:"token_label,optional"`
	PINFile    string `hcl:"pin_file,optional"`
}

type acmeBlock struct {
	Name       string `hcl:"name"`
	Email      string `hcl:"email"`
	AgreeToTOS bool   `hcl:"agree_to_tos,optional"`
	CA         string `hcl:"ca,optional"`
	TestCA     string `hcl:"test_ca,optional"`
}

type policyBlock struct {
	AllowAll              bool     `hcl:"allow_all,optional"`
	OwnTrustDomain        bool     `hcl:"own_trust_domain,optional"`
	AllowURIs             []string `hcl:"allow_uris,optional"`
	AllowTrustDomains     []string `hcl:"allow_trust_domains,optional"`
	DenyURIs              []string `hcl:"deny_uris,optional"`
	AllowCNs              []string `hcl:"allow_cns,optional"`
	AllowOUs              []string `hcl:"allow_ous,optional"`
	AllowDNSNames         []string `hcl:"allow_dns_names,optional"`
	AllowIPs              []string `hcl:"allow_ips,optional"`
	Pins                  []string `hcl:"pins,optional"`
	Rego                  string   `hcl:"rego,optional"`
	Query                 string   `hcl:"query,optional"`
	DisableAuthentication bool     `hcl:"disable_authentication,optional"`
}

type timeoutsBlock struct {
	Connect *time.Duration `hcl:"connect,optional"`
	Close   *time.Duration `hcl:"close,optional"`
	Idle    time.Duration  `hcl:"idle,optional"`
	MaxAge  time.Duration  `hcl:"max_age,optional"`
}

type limitsBlock struct {
	Connections int  `hcl:"connections,optional"`
	PerPeer     int  `hcl:"per_peer,optional"`
	Handshakes  *int `hcl:"handshakes,optional"`
}

type tcpBlock struct {
	KeepAlive   *time.Duration `hcl:"keep_alive,optional"`
	UserTimeout time.Duration  `hcl:"user_timeout,optional"`
}

type tlsBlock struct {
	MaxVersion   string   `hcl:"max_version,optional"`
	CipherSuites []string `hcl:"cipher_suites,optional"`
}

// tunnelPath is the path of a tunnel's block, as in the messages of hclconf.
func tunnelPath(name string) string { return fmt.Sprintf("tunnel %q", name) }
