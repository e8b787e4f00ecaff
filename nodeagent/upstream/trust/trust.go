// Package trust owns the places that an agent's first bundle comes from, the one
// it meets its issuer with: each is an upstream.BundleSource. It does not keep
// bundles.
package trust

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Formats of a bundle, SPIRE's words.
const (
	PEM    = "pem"    // certificates
	SPIFFE = "spiffe" // SPIFFE Trust Domain and Bundle, section 4
)

// File is a bundle in a file, which is read each time.
type File struct {
	TrustDomain spiffeid.TrustDomain
	Path        string
	// Format is PEM (as "") or SPIFFE.
	Format string
}

// Bundle implements upstream.BundleSource.
func (f File) Bundle(context.Context) (*x509bundle.Bundle, error) {
	return nil, errors.New("not there yet")
}

// URL is a bundle at an https URL, or at an http URL of a UNIX socket.
type URL struct {
	TrustDomain spiffeid.TrustDomain
	URL         string
	// UnixSocket, if set, is the path of the socket that answers.
	UnixSocket string
	// Format is PEM (as "") or SPIFFE.
	Format string
}

// Bundle implements upstream.BundleSource.
func (u URL) Bundle(context.Context) (*x509bundle.Bundle, error) {
	return nil, errors.New("not there yet")
}

// WorkloadAPI is the bundle that another Workload API has of the trust domain.
type WorkloadAPI struct {
	TrustDomain spiffeid.TrustDomain
	// Addr is unix:///path or tcp://ip:port.
	Addr string
}

// Bundle implements upstream.BundleSource.
func (w WorkloadAPI) Bundle(context.Context) (*x509bundle.Bundle, error) {
	return nil, errors.New("not there yet")
}
