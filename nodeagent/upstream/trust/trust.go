// Package trust owns the places that an agent's first bundle comes from, the one
// it meets its issuer with: each is an upstream.BundleSource. It does not keep
// bundles.
package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Formats of a bundle, SPIRE's words.
const (
	PEM    = "pem"    // certificates
	SPIFFE = "spiffe" // SPIFFE Trust Domain and Bundle, section 4
)

// maxBundle bounds a bundle, in bytes: some thousand authorities.
const maxBundle = 4 << 20

// Parse reads the X.509 part of a bundle of td in a format, PEM (as "") or SPIFFE.
// It is never empty.
func Parse(td spiffeid.TrustDomain, format string, content []byte) (*x509bundle.Bundle, error) {
	switch format {
	case PEM, "":
		return upstream.ParseTrustBundle(td, content)
	case SPIFFE:
		full, err := spiffebundle.Parse(td, content)
		if err != nil {
			return nil, fmt.Errorf("trust bundle is not in SPIFFE's format (%w): use the output of bundle show -format spiffe at the issuer, or set trust_bundle_format to pem", err)
		}
		bundle := full.X509Bundle()
		return bundle, upstream.CheckTrustBundle(bundle)
	}
	return nil, upstream.Hopeless(fmt.Errorf("trust_bundle_format %q: want %s or %s", format, PEM, SPIFFE))
}

// read reads all of r, but no more than a bundle may have.
func read(r io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	if err == nil && len(content) > maxBundle {
		err = fmt.Errorf("has more than %d bytes: this is no trust bundle", maxBundle)
	}
	return content, err
}

// File is a bundle in a file, which is read each time.
type File struct {
	TrustDomain spiffeid.TrustDomain
	Path        string
	// Format is PEM (as "") or SPIFFE.
	Format string
}

// Bundle implements upstream.BundleSource. No waiting mends a file that is not
// there, or is not a bundle.
func (f File) Bundle(context.Context) (*x509bundle.Bundle, error) {
	bundle, err := f.read()
	if err != nil {
		return nil, upstream.Hopeless(err)
	}
	return bundle, nil
}

func (f File) read() (*x509bundle.Bundle, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := read(file)
	if err == nil {
		bundle, err := Parse(f.TrustDomain, f.Format, content)
		if err == nil {
			return bundle, nil
		}
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return nil, err // names it
	}
	return nil, fmt.Errorf("%s: %w", f.Path, err)
}

// WorkloadAPI is the bundle that another Workload API has of the trust domain.
type WorkloadAPI struct {
	TrustDomain spiffeid.TrustDomain
	// Addr is unix:///path or tcp://ip:port.
	Addr string
}

// apiTimeout is how long the other Workload API may take, as SPIRE's.
const apiTimeout = time.Minute

// Bundle implements upstream.BundleSource.
func (w WorkloadAPI) Bundle(ctx context.Context) (*x509bundle.Bundle, error) {
	if err := workloadapi.ValidateAddress(w.Addr); err != nil {
		return nil, upstream.Hopeless(fmt.Errorf("trust_bundle_spiffe_workload_api %q: %w: want unix:///path/of/the.sock or tcp://ip:port", w.Addr, err))
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	set, err := workloadapi.FetchX509Bundles(ctx, workloadapi.WithAddr(w.Addr))
	if err != nil {
		return nil, fmt.Errorf("workload API %s: %w", w.Addr, err)
	}
	bundle, ok := set.Get(w.TrustDomain)
	if !ok || bundle.Empty() {
		return nil, fmt.Errorf("workload API %s has no bundle of trust domain %q", w.Addr, w.TrustDomain.Name())
	}
	return bundle, upstream.CheckTrustBundle(bundle)
}
