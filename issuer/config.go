package issuer

import (
	"cmp"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/oidc"
	"github.com/lanyard-mtls/lanyard/issuer/serverapi"
)

// Config says what an issuer is. Zero values are the defaults named.
type Config struct {
	// TrustDomain is required.
	TrustDomain spiffeid.TrustDomain
	// DataDir holds the store and the keys; required. One issuer at a time.
	DataDir string
	// BindAddress is an IP address; "" is 127.0.0.1.
	BindAddress string
	// BindPort is a TCP port; 0 takes any that is free.
	BindPort int
	// SocketPath is the admin socket; required. Whoever may connect to it is an
	// administrator: its mode is 0600.
	SocketPath string

	// CATTL is the lifetime of a signing authority; 0 is 24 h.
	CATTL time.Duration
	// DefaultX509SVIDTTL is the lifetime of SVIDs whose entry names none; 0 is 1 h.
	DefaultX509SVIDTTL time.Duration
	// AgentTTL is the lifetime of agents' SVIDs; 0 is DefaultX509SVIDTTL.
	AgentTTL time.Duration
	// CASubject is the subject of authorities; empty is C=US,O=SPIFFE.
	CASubject pkix.Name
	// CAKeyType is of new signing authorities; "" is ec-p256.
	CAKeyType ca.KeyType
	// MemoryKeys keeps private keys in memory alone: each start makes new
	// authorities, and agents have to learn them.
	MemoryKeys bool
	// KeyFile holds private keys; "" is keys.json in DataDir.
	KeyFile string
	// Parent certifies the authorities; nil lets each certify itself.
	Parent ca.Parent
	// Composers change what is signed, in this order.
	Composers []ca.Composer

	// DefaultJWTSVIDTTL is the lifetime of JWT-SVIDs whose entry names none; 0 is 5 m.
	DefaultJWTSVIDTTL time.Duration
	// JWTKeyType is of new JWT authorities; "" is CAKeyType.
	JWTKeyType ca.KeyType
	// JWTIssuer is the "iss" claim of JWT-SVIDs; "" leaves it out.
	JWTIssuer string
	// DisableJWTSVIDs leaves JWT-SVIDs and their authorities out.
	DisableJWTSVIDs bool

	// AdminIDs are the SPIFFE IDs of administrators, who may call over TCP.
	AdminIDs []spiffeid.ID
	// Limits says which calls are slowed down; the zero value is none.
	Limits serverapi.Limits
	// Audit logs every call, not only those that change or sign something.
	Audit bool
	// RequirePQKEM refuses key exchanges without ML-KEM, and TLS before 1.3.
	RequirePQKEM bool
	// ProxyProtocol are the networks of proxies that say whose connections they forward.
	ProxyProtocol []netip.Prefix

	// Methods are the methods of node attestation by name, beside join_token and
	// join_key, which need no configuration.
	Methods map[string]NewMethod
	// AgentIDAsSelector gives each agent the selector spiffe_id:ID.
	AgentIDAsSelector bool
	// PruneAgentsExpiredFor deletes agents whose SVID expired so long ago; 0 keeps them.
	PruneAgentsExpiredFor time.Duration
	// PruneAgentsBatch is how many are deleted at once; 0 is 1000.
	PruneAgentsBatch int
	// PruneTOFUAgents deletes also those that could not join again by themselves.
	PruneTOFUAgents bool

	// Metrics, Health and OIDC are further listeners; their zero values are none.
	Metrics metrics.Config
	Health  health.Config
	OIDC    *oidc.Config

	// Log may be nil.
	Log *slog.Logger
	// Level is the level of Log, for administrators to change; nil leaves it fixed.
	Level *slog.LevelVar
	// Version is Lanyard's, for backups.
	Version string
	// Ready, if not nil, is called once, when both listeners serve.
	Ready func(Addrs)
}

// NewMethod makes a method of node attestation of an issuer that runs.
type NewMethod func(MethodDeps) (enroll.Method, error)

// MethodDeps is what methods may need of the issuer.
type MethodDeps struct {
	TrustDomain spiffeid.TrustDomain
	// Bundle returns the trust domain's own bundle as it is now.
	Bundle func() (*x509bundle.Bundle, error)
	Log    *slog.Logger
}

// Addrs are where an issuer serves. Those of listeners that are not configured
// are nil.
type Addrs struct {
	TCP     net.Addr
	Socket  string
	Metrics net.Addr
	Health  net.Addr
	OIDC    net.Addr
}

// Lifetimes below this leave agents no time to renew.
const (
	minCATTL   = 10 * time.Second
	minSVIDTTL = 2 * time.Second
)

// Validate reports everything that is wrong with the configuration. It looks at
// nothing outside it.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.TrustDomain.IsZero() {
		wrong("trust_domain is missing: name one, such as example.org")
	}
	if c.DataDir == "" {
		wrong("data_dir is missing: name a directory for this issuer's keys and records")
	}
	if c.BindAddress != "" && net.ParseIP(c.BindAddress) == nil {
		wrong("bind_address %q is not an IP address, such as 0.0.0.0", c.BindAddress)
	}
	if c.BindPort < 0 || c.BindPort > 65535 {
		wrong("bind_port %d: want 1 to 65535, or 0 for any that is free", c.BindPort)
	}
	if c.SocketPath == "" {
		wrong("socket_path is missing: name the admin socket")
	}
	atLeast := func(key string, ttl, least time.Duration) {
		if ttl != 0 && ttl < least {
			wrong("%s %s: want %s or more", key, ttl, least)
		}
	}
	atLeast("ca_ttl", c.CATTL, minCATTL)
	atLeast("default_x509_svid_ttl", c.DefaultX509SVIDTTL, minSVIDTTL)
	atLeast("agent_ttl", c.AgentTTL, minSVIDTTL)
	atLeast("default_jwt_svid_ttl", c.DefaultJWTSVIDTTL, minSVIDTTL)
	for _, id := range c.AdminIDs {
		if id.IsZero() {
			wrong("admin_ids has an empty SPIFFE ID")
		}
	}
	if err := c.Metrics.Validate(); err != nil {
		wrong("telemetry.Prometheus: %w", err)
	}
	if c.Health.Enabled {
		if err := c.Health.Validate(); err != nil {
			wrong("%w", err)
		}
	}
	if c.OIDC != nil {
		cfg := *c.OIDC
		cfg.Keys = func() []*types.JWTKey { return nil } // Run puts the issuer's there
		if err := cfg.Validate(); err != nil {
			wrong("oidc: %w", err)
		}
	}
	return errors.Join(errs...)
}

// withDefaults returns the configuration with its defaults filled in.
func (c Config) withDefaults() Config {
	if c.BindAddress == "" {
		c.BindAddress = "127.0.0.1"
	}
	if c.CATTL == 0 {
		c.CATTL = ca.DefaultTTL
	}
	if c.PruneAgentsBatch == 0 {
		c.PruneAgentsBatch = 1000
	}
	if c.DefaultX509SVIDTTL == 0 {
		c.DefaultX509SVIDTTL = ca.DefaultX509SVIDTTL
	}
	if c.AgentTTL == 0 {
		c.AgentTTL = c.DefaultX509SVIDTTL
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Ready == nil {
		c.Ready = func(Addrs) {}
	}
	return c
}

func (c Config) address() string  { return net.JoinHostPort(c.BindAddress, strconv.Itoa(c.BindPort)) }
func (c Config) lockFile() string { return filepath.Join(c.DataDir, "lock") }
func (c Config) storeDir() string { return filepath.Join(c.DataDir, "store") }

// keyFile is where spire-server has it below its data_dir, if nothing else is said.
func (c Config) keyFile() string { return cmp.Or(c.KeyFile, filepath.Join(c.DataDir, "keys.json")) }
