// Package policy owns the decision whether a peer may use a tunnel, and the words for it: functions of names in a verified
// certificate and of rules. It does not verify that a peer is who it says (internal/mtls and crypto/tls do), except where
// pins stand in for that; it does no I/O, but may ask an [Engine] that does.
package policy

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// The directions of a tunnel, as in Request and Config.
const (
	Inbound  = "inbound"  // the peer is a client
	Outbound = "outbound" // the peer is a server
)

// Request is what a decision is about.
type Request struct {
	Own  spiffeid.ID // this end's SPIFFE ID; zero if it has none
	Peer spiffeid.ID // the other end's, verified against the bundle of its trust domain; zero if it is no SPIFFE peer
	// Certificate is the peer's leaf; nil if it showed none. Its chain was verified, except for a policy of pins.
	Certificate *x509.Certificate

	Tunnel     string
	Direction  string // Inbound or Outbound
	ServerName string // SNI
	// ClientAddr is the address of the end that connected. Only policies that need the connection (NeedsConnection) get it.
	ClientAddr string
	Listen     string // as configured, like Target
	Target     string
}

// Decision is the answer. Both texts are for people and logs, one line each.
type Decision struct {
	Allowed bool
	// Rule is the rule that decided, in the user's words; empty if none matched.
	Rule string
	// Reason says why the peer was refused, naming it and the rules; empty if it was allowed.
	Reason string
}

// Policy decides about peers; it is asked by many goroutines. A Policy may also implement [Connected].
type Policy interface {
	// Decide never allows where it could not ask all it needed to. ctx bounds an engine's time.
	Decide(ctx context.Context, r Request) Decision
}

// Connected is implemented by policies whose decision may depend on the connection.
type Connected interface {
	// NeedsConnection reports whether Request.ClientAddr is of use.
	NeedsConnection() bool
}

// NeedsConnection reports whether p wants Request.ClientAddr.
func NeedsConnection(p Policy) bool {
	c, ok := p.(Connected)
	return ok && c.NeedsConnection()
}

// Engine is a policy language. It is asked by many goroutines.
type Engine interface {
	// Allow evaluates the policy. An error means refused, whatever the bool is; its text says what was asked and what came.
	Allow(ctx context.Context, r Request) (bool, error)
	// Reload reads the policy, the first time as well: until then Allow gives an error. On an error the old policy stays.
	Reload(ctx context.Context) error
}

// Reload reads the files behind p again, or for the first time: call it before the first decision. On an error the policy
// read before stays.
func Reload(ctx context.Context, p Policy) error {
	if r, ok := p.(interface{ Reload(context.Context) error }); ok {
		return r.Reload(ctx)
	}
	return nil
}

// Rego is where an engine finds its policy and what it asks it.
type Rego struct {
	// Path is a file that ends in .rego, or else an OPA bundle: a directory or a .tar.gz file.
	Path string
	// Query is the question, such as data.lanyard.allow. Only the single answer true allows.
	Query string
	// Timeout is the longest that one decision may take; 0 is 10 s.
	Timeout time.Duration
}

// used reports whether an engine is asked for. The time limit alone asks for none.
func (r Rego) used() bool { return r.Path != "" || r.Query != "" }

// Deps is what a policy gets from the command that builds it.
type Deps struct {
	// Name gives the user's word for a key in messages, such as "--allow-uri" for "allow_uris"; nil keeps the key.
	Name func(key string) string
	// Rego makes an engine, without I/O. Nil means that this binary has none.
	Rego func(Rego) (Engine, error)
	// Log gets a line per decision at level debug; nil discards.
	Log *slog.Logger
}
