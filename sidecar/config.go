// Package sidecar owns the role that speaks mutual TLS for programs that know
// nothing about it: Config says what it does, a Sidecar does it until it is told
// to stop, and takes a new Config meanwhile. It holds wiring only: accept,
// inbound and outbound have the connections, policy the rules, pipe the bytes,
// identity the certificates.
package sidecar

import (
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/accept"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
	"github.com/lanyard-mtls/lanyard/sidecar/notify"
	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

// Mode is the side of a tunnel.
type Mode string

const (
	// Server takes mutual TLS in and sends plaintext to its target.
	Server Mode = "server"
	// Client takes plaintext in and sends mutual TLS to its target.
	Client Mode = "client"
)

// Direction is what records, metrics and policies call m.
func (m Mode) Direction() record.Direction {
	if m == Client {
		return record.Outbound
	}
	return record.Inbound
}

// What settings are when they are not given.
const (
	DefaultShutdownTimeout = 5 * time.Minute
	DefaultConnectTimeout  = 10 * time.Second
	// DefaultDrainIdle is how long a connection may be idle during a shutdown.
	DefaultDrainIdle = 15 * time.Second
	// DefaultHandshakes is how many connections of a tunnel may be set up at once.
	DefaultHandshakes = 1000
)

// Config is what a sidecar does.
type Config struct {
	// Tunnels are what it carries; their names differ.
	Tunnels []Tunnel
	Status  Status
	Metrics metrics.Config
	// ShutdownTimeout is how long open connections may go on after the end was
	// asked for; 0 is DefaultShutdownTimeout. DrainIdle is how long one of them may
	// be idle then; 0 is DefaultDrainIdle, less than 0 for as long as the rest. One
	// whose end is done sending waits for its answer, and is not idle.
	ShutdownTimeout, DrainIdle time.Duration
	// IdentityTimeout is how long each identity may take to come at the start; Run
	// then ends with an error. 0 is for ever: connections are refused meanwhile.
	IdentityTimeout time.Duration
	// Quiet are the records left out of the log.
	Quiet record.Quiet
	// Notify is how systemd is told, and Revision the version told on the status
	// port.
	Notify   notify.Config
	Revision string
	Sandbox  Sandbox
	// Log gets the events and one record per connection; nil discards.
	Log *slog.Logger
	// Ready is called once, when everything listens; it may be nil.
	Ready func(Addrs)
	// Deps are parts that a build may leave out.
	Deps Deps
}

// Sandbox says what the sidecar keeps of its rights, besides what its
// configuration needs.
type Sandbox struct {
	// Enabled gives up the rest, for the whole process and for ever.
	Enabled bool
	// ReadFiles can still be read, with what is beside them; WriteDirs written.
	ReadFiles, WriteDirs []string
	// Reloads leaves the network unrestricted, for configurations to come.
	Reloads bool
}

// Deps are parts that a build may leave out, or that a test replaces.
type Deps struct {
	Identity identity.Deps // without its Log
	Policy   policy.Deps
}

// Status is where health and metrics are served.
type Status struct {
	// Listen is [http[s]://]HOST:PORT, unix:PATH or systemd:NAME; empty is nowhere.
	Listen string
	// PProf serves /debug/pprof/, and Shutdown takes POST /_shutdown.
	PProf, Shutdown bool
}

// Tunnel is one listener and where its connections go.
type Tunnel struct {
	// Name is for people; empty for the only one of a command line.
	Name string
	Mode Mode
	// Listen is HOST:PORT, unix:PATH or systemd:NAME; Target HOST:PORT, or in
	// Server mode unix:PATH.
	Listen, Target string
	// UnsafeListen and UnsafeTarget permit a plaintext end that is not local.
	UnsafeListen, UnsafeTarget bool
	Identity                   identity.Config
	Policy                     policy.Config

	// ServerName is sent as SNI, and with files is the name that the server's
	// certificate must be for; empty is the target's host. Clients only.
	ServerName string
	// Via is the proxy a client reaches its target through.
	Via string
	// TargetStatus is the URL that a server's status asks its target for.
	TargetStatus string
	// ProxyProtocol is what a server tells its target of clients, and
	// AcceptProxyProtocol are the CIDRs of balancers that tell it.
	ProxyProtocol       proxyproto.Mode
	AcceptProxyProtocol []string

	// ALPN are the application protocols (RFC 7301), in order of preference.
	ALPN []string
	// MaxTLSVersion is a version of crypto/tls; 0 is its highest. CipherSuites are
	// those of TLS 1.2; nil is crypto/tls's choice.
	MaxTLSVersion uint16
	CipherSuites  []uint16
	// NoResumption makes every handshake a full one.
	NoResumption bool

	// ConnectTimeout is the time for everything before the first byte; 0 is
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// CloseTimeout is how long a connection may be silent once one end is done
	// sending; 0 is for ever, less than 0 no time at all.
	CloseTimeout time.Duration
	// IdleTimeout is how long it may be silent before, and MaxAge how long it may
	// last; 0 is for ever.
	IdleTimeout, MaxAge time.Duration
	// Limits bound what clients make it hold; Handshakes 0 is DefaultHandshakes.
	Limits accept.Limits

	// KeepAlive is when TCP looks for peers that vanished; the zero value is 15 s
	// of silence, then 9 probes 15 s apart. UserTimeout is how long bytes may stay
	// unacknowledged (TCP_USER_TIMEOUT); 0 leaves it to the kernel.
	KeepAlive   net.KeepAliveConfig
	UserTimeout time.Duration
	// SocketMode is the mode of a UNIX socket to listen on; 0 is 0600.
	SocketMode fs.FileMode
	// ReusePort shares the port with other processes (SO_REUSEPORT).
	ReusePort bool
	// SkipResolve leaves the target's name alone at the start.
	SkipResolve bool
}

// Addrs are the addresses bound.
type Addrs struct {
	// Tunnels are the listeners' addresses, by tunnel.
	Tunnels map[string]net.Addr
	Status  net.Addr // nil without Config.Status
}

func (c Config) withDefaults() Config {
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = DefaultShutdownTimeout
	}
	if c.DrainIdle == 0 {
		c.DrainIdle = DefaultDrainIdle
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Metrics.Serve = c.Status.Listen != ""
	c.Metrics.Log = c.Log
	tunnels := make([]Tunnel, len(c.Tunnels))
	for i, t := range c.Tunnels {
		tunnels[i] = t.withDefaults()
	}
	c.Tunnels = tunnels
	return c
}

func (t Tunnel) withDefaults() Tunnel {
	if t.ConnectTimeout == 0 {
		t.ConnectTimeout = DefaultConnectTimeout
	}
	if t.Limits.Handshakes == 0 {
		t.Limits.Handshakes = DefaultHandshakes
	}
	if t.KeepAlive == (net.KeepAliveConfig{}) {
		t.KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}
	}
	t.Policy.Direction = string(t.Mode.Direction())
	t.Policy.HostName = t.verifiesHostName()
	return t
}

// verifiesHostName says that servers are known by their host name: to a client
// that has no SPIFFE bundles to know them by.
func (t Tunnel) verifiesHostName() bool {
	return t.Mode == Client && t.Identity.WorkloadAPI == "" && len(t.Identity.TrustBundles) == 0
}
