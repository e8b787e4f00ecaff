// Package nodeagent owns the node agent as a whole: its configuration, and the
// order in which its parts start and stop. What they do is in the packages below.
package nodeagent

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/health"
	"github.com/lanyard-mtls/lanyard/internal/metrics"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Config says which issuer an agent belongs to and where it serves.
type Config struct {
	// TrustDomain is the issuer's.
	TrustDomain spiffeid.TrustDomain
	// DataDir has the agent's key and SVID (SPIRE's agent-data.json and
	// keys.json). It is this agent's alone, and locked.
	DataDir string
	// ServerAddress is the issuer's host:port.
	ServerAddress string
	// ServerAddresses, if there are any, are those of several issuers of the trust
	// domain, and ServerAddress is not used: where one is away, the next is asked.
	ServerAddresses []string
	// SocketPath is where the Workload API is served, to everyone on the node.
	SocketPath string
	// AdminSocketPath is where the agent's own user and root ask what it does,
	// and AuthorizedDelegates have identities of others; "" is nowhere.
	AdminSocketPath string
	// JoinToken is needed to join, once. It is for an agent without Attestor.
	JoinToken string
	// Attestor is what the agent joins with (package upstream/attest); nil: by
	// JoinToken.
	Attestor upstream.Attestor
	// Version is told to the issuer, such as lanyard/v1.2.3; it may be "".
	Version string
	// TrustBundle (PEM), the file TrustBundlePath, or TrustSource (package
	// upstream/trust) verifies the issuer until its bundle was fetched. At most
	// one is set.
	TrustBundle     []byte
	TrustBundlePath string
	TrustSource     upstream.BundleSource
	// InsecureBootstrap takes whoever answers at ServerAddress the first time
	// for the issuer; for trials only. It is ignored where there is a bundle.
	InsecureBootstrap bool
	// Rebootstrap says what happens where the issuer's certificate is of an
	// authority that the agent doesn't know: "never" (as ""), "auto" or "always"
	// forget the bundle and begin anew once that has been so for RebootstrapDelay
	// (0 is 10 min). "always" refuses to run where the agent couldn't attest anew.
	Rebootstrap      string
	RebootstrapDelay time.Duration
	// SyncInterval is how often an issuer that doesn't tell of changes by itself
	// is asked for them; 0 is 5 s.
	SyncInterval time.Duration
	// NoSyncAuthorizedEntries asks for all entries each time, for issuers whose
	// SyncAuthorizedEntries is not to be used.
	NoSyncAuthorizedEntries bool
	// RequirePQKEM talks to issuers only over key exchanges that are safe from
	// quantum computers (X25519MLKEM768).
	RequirePQKEM bool
	// AvailabilityTarget is how long before its end an SVID is renewed, so that
	// an issuer may be away for so long; 0 renews at half its life. At least 24 h.
	AvailabilityTarget time.Duration
	// MemoryKeys keeps the agent's own keys in memory alone: it attests anew at
	// each start.
	MemoryKeys bool
	// X509SVIDCacheMaxSize is how many SVIDs are kept that no workload asked
	// for; 0 is 1000.
	X509SVIDCacheMaxSize int
	// JWTSVIDCacheMaxSize is how many JWT-SVIDs are kept, the last used; 0 is
	// 1000.
	JWTSVIDCacheMaxSize int
	// JWTSVIDCacheHitTimeout is how long a caller waits for a newer JWT-SVID where
	// there is one that is good, but past half its life; 0 is 1 s.
	JWTSVIDCacheHitTimeout time.Duration
	// AllowedForeignJWTClaims are told by ValidateJWTSVID of other trust
	// domains' tokens, besides sub, aud and exp.
	AllowedForeignJWTClaims []string
	// DiscoverWorkloadPath adds the selectors unix:path and unix:sha256.
	DiscoverWorkloadPath bool
	// WorkloadSizeLimit is the longest executable that is hashed, in bytes; 0
	// is any, below 0 none.
	WorkloadSizeLimit int64
	// WorkloadPlugins attest workloads besides the unix attestor, which is always
	// asked: package workloadattest/docker and its siblings.
	WorkloadPlugins []workloadattest.Plugin
	// WorkloadKeyType is ec-p256 (as ""), ec-p384, rsa-2048 or rsa-4096.
	WorkloadKeyType string
	// Sockets are further sockets of the Workload API, each for some workload.
	Sockets []WorkloadSocket
	// TakeOver takes the sockets over from the agent that runs with this DataDir,
	// which stops then.
	TakeOver bool
	// AllowUnauthenticatedVerifiers gives the trust domain's bundles to callers
	// without an identity.
	AllowUnauthenticatedVerifiers bool
	// DisableWorkloadAPI serves Services alone.
	DisableWorkloadAPI bool
	// RateLimits is how many calls a second callers of the same selectors may make
	// of a method, by its name in experimental.ratelimit; none: any number.
	RateLimits map[string]int
	// LogSelectors are the types of the selectors that are logged; nil: all.
	LogSelectors []string
	// AuthorizedDelegates may have the identities of others on the admin socket,
	// by the delegated identity API.
	AuthorizedDelegates []spiffeid.ID
	// Metrics and Health are further listeners.
	Metrics metrics.Config
	Health  health.Config
	// Log may be nil.
	Log *slog.Logger
	// Level is that of Log, for who sets it over the admin socket; LaunchLevel is
	// what a reset sets. Level may be nil.
	Level       *slog.LevelVar
	LaunchLevel slog.Level
	// Ready is called once, when the sockets answer. The agent may not have
	// joined by then: callers are told Unavailable until it has. May be nil.
	Ready func(Addrs)
	// Services are served on the Workload API's socket besides it, such as
	// Envoy's SDS. They must not keep the source beyond their own calls.
	Services []func(grpc.ServiceRegistrar, X509Source)
}

// WorkloadSocket is a socket for some workload, as for mounting it into one
// container. Whoever calls over it has, besides its own, the selector
// lanyard:socket:NAME.
type WorkloadSocket struct {
	// Name is one path segment.
	Name string
	Path string
	// Mode of the file; 0 is 0777.
	Mode fs.FileMode
	// UID and GID own the file; -1 is the agent's.
	UID, GID int
	// Only gives no identities but those of entries that name the socket.
	Only bool
}

// Addrs are where an agent serves.
type Addrs struct {
	Socket net.Addr
	// Those that are not configured are nil.
	AdminSocket, Metrics, Health net.Addr
}

// X509Source gives further services what their callers are entitled to.
type X509Source interface {
	// WatchX509Context calls update with what the caller of the RPC of ctx is
	// given, at once and at each change, until ctx ends. The caller is attested
	// from ctx. It returns a status error (PermissionDenied: no identity;
	// Unavailable: not synced or not attested), update's error, or ctx's.
	WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error
}
