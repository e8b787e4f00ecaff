package issuercmd

import (
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var errNoCIDR = errors.New("want a network like 10.0.0.0/8")

type telemetryBlock struct {
	Prometheus *prometheusBlock `hcl:"Prometheus,block"`
	DogStatsd  []sinkBlock      `hcl:"DogStatsd,block"`
	Statsd     []sinkBlock      `hcl:"Statsd,block"`
	M3         []sinkBlock      `hcl:"M3,block"`
	InMem      *struct{}        `hcl:"InMem,block"`

	MetricPrefix           string   `hcl:"MetricPrefix,optional"`
	EnableTrustDomainLabel bool     `hcl:"EnableTrustDomainLabel,optional"`
	EnableHostnameLabel    *bool    `hcl:"EnableHostnameLabel,optional"`
	AllowedPrefixes        []string `hcl:"AllowedPrefixes,optional"`
	BlockedPrefixes        []string `hcl:"BlockedPrefixes,optional"`
	AllowedLabels          []string `hcl:"AllowedLabels,optional"`
	BlockedLabels          []string `hcl:"BlockedLabels,optional"`
}

type prometheusBlock struct {
	Host string    `hcl:"host,optional"`
	Port int       `hcl:"port,optional"`
	TLS  *tlsBlock `hcl:"tls,block"`
}

type tlsBlock struct {
	CertFile            string        `hcl:"cert_file,optional"`
	KeyFile             string        `hcl:"key_file,optional"`
	ClientCAFile        string        `hcl:"client_ca_file,optional"`
	UseSPIRESVID        bool          `hcl:"use_spire_svid,optional"`
	AuthorizedSPIFFEIDs []spiffeid.ID `hcl:"authorized_spiffe_ids,optional"`
}

type sinkBlock struct {
	Address string `hcl:"address,optional"`
	Env     string `hcl:"env,optional"`
}

type healthChecksBlock struct {
	ListenerEnabled bool   `hcl:"listener_enabled,optional"`
	BindAddress     string `hcl:"bind_address,optional"`
	BindPort        *int   `hcl:"bind_port,optional"`
	ReadyPath       string `hcl:"ready_path,optional"`
	LivePath        string `hcl:"live_path,optional"`
}

// oidcBlock is Lanyard's own: what oidc-discovery-provider is beside SPIRE. Its keys are that program's, where it has them.
type oidcBlock struct {
	Domains             []string `hcl:"domains,optional"`
	JWTIssuer           string   `hcl:"jwt_issuer,optional"`
	JWKSURI             string   `hcl:"jwks_uri,optional"`
	ServerPathPrefix    string   `hcl:"server_path_prefix,optional"`
	SetKeyUse           bool     `hcl:"set_key_use,optional"`
	Listen              string   `hcl:"listen,optional"`
	CertFilePath        string   `hcl:"cert_file_path,optional"`
	KeyFilePath         string   `hcl:"key_file_path,optional"`
	Plaintext           bool     `hcl:"plaintext,optional"`
	AllowInsecureScheme bool     `hcl:"allow_insecure_scheme,optional"`
	LogRequests         bool     `hcl:"log_requests,optional"`
}
