package issuer

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
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

	// AdminIDs are the SPIFFE IDs of administrators, who may call over TCP.
	AdminIDs []spiffeid.ID

	// Log may be nil.
	Log *slog.Logger
	// Ready, if not nil, is called once, when both listeners serve.
	Ready func(Addrs)
}

// Addrs are where an issuer serves.
type Addrs struct {
	TCP    net.Addr
	Socket string
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
	for _, id := range c.AdminIDs {
		if id.IsZero() {
			wrong("admin_ids has an empty SPIFFE ID")
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

// keyFile is where spire-server has it below its data_dir.
func (c Config) keyFile() string { return filepath.Join(c.DataDir, "keys.json") }
