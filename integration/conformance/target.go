package conformance

import (
	"testing"
)

// Kind is whose server a target is, where the reviewed list has them differ.
type Kind string

// The servers that the list knows.
const (
	SPIRE   Kind = "spire"
	Lanyard Kind = "lanyard"
)

// Settings are what a server is started with, in the terms of SPIRE's server.conf.
type Settings struct {
	AdminIDs   []string // server.admin_ids
	AgentTTL   string   // server.agent_ttl, a Go duration; the default if empty
	DisableJWT bool     // server.disable_jwt_svids
	Limits     bool     // rate limits on, as by default; else off
	X509POPCA  string   // path of the CA file of NodeAttestor "x509pop"; none if empty
	Upstream   Files    // UpstreamAuthority "disk"; none if zero
}

// Files are a CA's certificate and key, as PEM.
type Files struct{ Cert, Key string }

// Server is a running server.
type Server struct {
	Addr        string // host:port of the TCP API
	AdminSocket string // path of the admin socket
	// Restart stops the server and starts it again on the same state; it returns when it is healthy.
	Restart func()
}

// Target starts servers to check.
type Target struct {
	Kind Kind
	// Start starts a server on a fresh state, which ends with t; it returns when it is healthy.
	Start func(t *testing.T, s Settings) *Server
}
