package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config says which issuer to talk to and as whom.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// DataDir has the state files and is this agent's alone.
	DataDir string
	// ServerAddress is host:port; all addresses of the name are used.
	ServerAddress string
	// ServerAddresses, if there are any, are those of several issuers of the trust
	// domain, and ServerAddress is not used. The agent stays with one while it
	// works, the first to begin with; when it doesn't, all calls go on to the
	// next. It returns to the first once that answers again, which it looks after
	// at 5 min, and ever less often, up to 1 h, where it keeps failing.
	ServerAddresses []string
	// Attestor is what the agent joins with.
	Attestor Attestor
	// Version is told to the issuer, such as lanyard/v1.2.3; at most 255 bytes.
	Version string
	// TrustBundle verifies the issuer until its own bundle is known; nil if
	// that is on disk already, or with InsecureBootstrap.
	TrustBundle *x509bundle.Bundle
	// TrustSource has the same, read anew each time that it is needed; nil:
	// TrustBundle.
	TrustSource       BundleSource
	InsecureBootstrap bool
	// Rebootstrap says when to begin anew.
	Rebootstrap Rebootstrap
	// SyncInterval is the time from one poll to the next; 0 is 5 s. An issuer
	// that tells of changes by itself is not polled.
	SyncInterval time.Duration
	// UseSync polls with SyncAuthorizedEntries where the issuer has it, or else
	// with GetAuthorizedEntries; nil is true.
	UseSync *bool
	// AvailabilityTarget is how long the agent is to outlast an issuer that is
	// away: its SVID is renewed so long before it expires, if it lives longer by
	// 12 h at least. 0: it is renewed at half its life.
	AvailabilityTarget time.Duration
	// RequirePQKEM makes connections with X25519MLKEM768 alone, which keeps
	// what is recorded today from tomorrow's quantum computers.
	RequirePQKEM bool
	// MemoryKeys keeps the agent's keys off the disk: it attests anew at each
	// start.
	MemoryKeys bool
	// Attempted, if set, is called after each attempt to be up to date: at the end
	// of a poll, when a stream has brought a change or a sign of life, and when it
	// ends. nil: the agent is up to date. It must not block.
	Attempted func(error)
	// Log may be nil.
	Log *slog.Logger
}

// minAvailabilityTarget is SPIRE's.
const minAvailabilityTarget = 24 * time.Hour

func (cfg *Config) setDefaults() {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SyncInterval == 0 {
		cfg.SyncInterval = 5 * time.Second
	}
	if len(cfg.ServerAddresses) == 0 {
		cfg.ServerAddresses = []string{cfg.ServerAddress}
	}
	if cfg.Rebootstrap.Mode == "" {
		cfg.Rebootstrap.Mode = RebootstrapNever
	}
	if cfg.Rebootstrap.Delay == 0 {
		cfg.Rebootstrap.Delay = 10 * time.Minute
	}
}

// check reports what is wrong in itself.
func (cfg *Config) check() error {
	var errs []error
	if t := cfg.AvailabilityTarget; t != 0 && t < minAvailabilityTarget {
		errs = append(errs, fmt.Errorf("availability_target %s is shorter than %s: set that or more, or leave it out", t, minAvailabilityTarget))
	}
	if cfg.TrustSource != nil && cfg.TrustBundle != nil {
		errs = append(errs, errors.New("two trust bundles are set: keep one"))
	}
	method, again := cfg.Attestor.Kind()
	noSource := cfg.TrustSource == nil && cfg.TrustBundle == nil
	switch mode := cfg.Rebootstrap.Mode; {
	case mode != RebootstrapNever && mode != RebootstrapAuto && mode != RebootstrapAlways:
		errs = append(errs, fmt.Errorf("rebootstrap_mode %q: want %s, %s or %s", mode, RebootstrapNever, RebootstrapAuto, RebootstrapAlways))
	case mode == RebootstrapAlways && !again:
		errs = append(errs, fmt.Errorf("rebootstrap_mode is always, but an agent that joins by %s cannot attest anew: configure another NodeAttestor, such as x509pop, or set rebootstrap_mode to auto or never", method))
	case mode == RebootstrapAlways && noSource:
		errs = append(errs, errors.New("rebootstrap_mode is always, but there is no trust bundle to begin anew with: set trust_bundle_url, trust_bundle_path or trust_bundle_spiffe_workload_api"))
	}
	return errors.Join(errs...)
}

// warn tells of what is allowed and likely to surprise.
func (cfg *Config) warn() {
	method, again := cfg.Attestor.Kind()
	if cfg.MemoryKeys && !again {
		cfg.Log.Warn("the agent's keys are kept in memory alone: by this method it needs a new token at each start (KeyManager disk keeps them)", "method", method)
	}
	if cfg.Rebootstrap.Mode == RebootstrapAuto && (!again || cfg.TrustSource == nil && cfg.TrustBundle == nil) {
		cfg.Log.Warn("rebootstrap_mode is auto, and off: it takes a node attestor that can attest anew, and a trust bundle", "method", method)
	}
}
