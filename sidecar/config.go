// Package sidecar owns the role that speaks mutual TLS for a program that knows
// nothing about it: Config says what it does, Run does it until it is told to
// stop. It holds wiring only; the connections are in inbound and outbound, the
// rules in policy, the bytes in pipe, the certificates in identity.
package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
)

// Mode is the side of the tunnel.
type Mode string

const (
	// Server takes mutual TLS in and sends plaintext to its target.
	Server Mode = "server"
	// Client takes plaintext in and sends mutual TLS to its target.
	Client Mode = "client"
)

// What the flags are when they are not given.
const (
	DefaultShutdownTimeout = 5 * time.Minute
	DefaultConnectTimeout  = 10 * time.Second
)

// Config is what one sidecar does. Each field is the flag of the same name.
type Config struct {
	Mode Mode
	// Listen is HOST:PORT or unix:PATH.
	Listen string
	// Target is HOST:PORT, or unix:PATH in Server mode.
	Target string
	// WorkloadAPIAddr is a URI; empty means the value of $SPIFFE_ENDPOINT_SOCKET.
	WorkloadAPIAddr string
	// SPIFFEID picks one of several SVIDs; zero means the first one offered.
	SPIFFEID spiffeid.ID

	// AllowURIs are the patterns of the SPIFFE IDs a Server lets in; AllowAll
	// lets every ID of the trust domains in the bundles in.
	AllowURIs []string
	AllowAll  bool
	// VerifyURIs are the patterns of the SPIFFE IDs a Client expects; none means
	// any ID of its own trust domain.
	VerifyURIs []string

	// UnsafeTarget and UnsafeListen permit a plaintext end that is not local.
	UnsafeTarget bool
	UnsafeListen bool

	// Status is where health is served, [http://]HOST:PORT or unix:PATH; empty is nowhere.
	Status string
	// ShutdownTimeout is how long open connections may go on after the end was
	// asked for; 0 is DefaultShutdownTimeout.
	ShutdownTimeout time.Duration
	// ConnectTimeout is the time for identity, handshake and dial together; 0 is
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration

	// Log gets the events and one record per connection; nil discards.
	Log *slog.Logger
	// Ready is called once, when everything listens; it may be nil.
	Ready func(Addrs)
}

// Addrs are the addresses bound.
type Addrs struct {
	Listen net.Addr
	Status net.Addr // nil without Config.Status
}

func (c Config) withDefaults() Config {
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = DefaultShutdownTimeout
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = DefaultConnectTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns everything that is wrong with c, one line each, named by
// flag. It does no I/O.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := []error{c.validateTimeouts(), c.validateAddrs(), c.validateStatus(), c.validateIdentity()}
	switch c.Mode {
	case Server:
		errs = append(errs, c.validateServer())
	case Client:
		errs = append(errs, c.validateClient())
	default:
		errs = append(errs, fmt.Errorf("mode %q: use %q or %q", c.Mode, Server, Client))
	}
	return errors.Join(errs...)
}

func (c Config) validateTimeouts() error {
	var errs []error
	if c.ConnectTimeout < 0 {
		errs = append(errs, fmt.Errorf("--connect-timeout %s: must be more than 0", c.ConnectTimeout))
	}
	if c.ShutdownTimeout < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-timeout %s: must be more than 0", c.ShutdownTimeout))
	}
	return errors.Join(errs...)
}

func (c Config) validateAddrs() error {
	_, listenErr := parseEndpoint("--listen", c.Listen)
	_, targetErr := parseEndpoint("--target", c.Target)
	return errors.Join(listenErr, targetErr)
}

func (c Config) validateStatus() error {
	if c.Status == "" {
		return nil
	}
	_, err := parseStatus(c.Status)
	return err
}

func (c Config) validateIdentity() error {
	var errs []error
	if !c.SPIFFEID.IsZero() && c.SPIFFEID.Path() == "" {
		errs = append(errs, fmt.Errorf("--spiffe-id %s: names a trust domain, not a workload: add its path", c.SPIFFEID))
	}
	_, err := workload.ParseAddr(c.WorkloadAPIAddr)
	switch {
	case errors.Is(err, workload.ErrNoAddr):
		errs = append(errs, fmt.Errorf("no identity source: give --use-workload-api-addr, or set %s and give --use-workload-api", workload.AddrEnv))
	case err != nil && c.WorkloadAPIAddr != "":
		errs = append(errs, fmt.Errorf("--use-workload-api-addr: %w", err))
	case err != nil:
		errs = append(errs, fmt.Errorf("%s: %w", workload.AddrEnv, err))
	}
	return errors.Join(errs...)
}

func (c Config) validateServer() error {
	var errs []error
	if len(c.VerifyURIs) > 0 {
		errs = append(errs, errors.New("--verify-uri belongs to client: a server takes --allow-uri"))
	}
	switch {
	case c.AllowAll && len(c.AllowURIs) > 0:
		errs = append(errs, errors.New("--allow-all and --allow-uri exclude each other: drop one"))
	case !c.AllowAll && len(c.AllowURIs) == 0:
		errs = append(errs, errors.New("nobody may connect: give --allow-uri PATTERN (such as spiffe://TRUST-DOMAIN/**) or --allow-all"))
	}
	if c.Target != "" && !c.UnsafeTarget && !isLocal(c.Target) {
		errs = append(errs, fmt.Errorf("--target %s: plaintext would leave this machine: use %s, or add --unsafe-target", c.Target, localForms))
	}
	_, err := policy.CompilePatterns("--allow-uri", c.AllowURIs)
	return errors.Join(append(errs, err)...)
}

func (c Config) validateClient() error {
	var errs []error
	if c.AllowAll || len(c.AllowURIs) > 0 {
		errs = append(errs, errors.New("--allow-uri and --allow-all belong to server: a client takes --verify-uri"))
	}
	if strings.HasPrefix(c.Target, "unix:") {
		errs = append(errs, fmt.Errorf("--target %s: a client's target is HOST:PORT", c.Target))
	}
	if c.Listen != "" && !c.UnsafeListen && !isLocal(c.Listen) {
		errs = append(errs, fmt.Errorf("--listen %s: others could use this identity: use %s, or add --unsafe-listen", c.Listen, localForms))
	}
	_, err := policy.CompilePatterns("--verify-uri", c.VerifyURIs)
	return errors.Join(append(errs, err)...)
}
