package upstream

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var errSkeleton = errors.New("not built yet")

// DiskConfig names the files of an authority, in PEM.
type DiskConfig struct {
	CertFile string // of the signing certificate, then its intermediates
	KeyFile  string
	// BundleFile has the roots; empty if the certificate is its own root.
	BundleFile  string
	TrustDomain spiffeid.TrustDomain
}

// Disk is an authority in files. It implements ca.Parent.
type Disk struct{ cfg DiskConfig }

// NewDisk returns a Disk, which reads the files each time it certifies.
func NewDisk(cfg DiskConfig) *Disk { return &Disk{cfg: cfg} }

// Certify implements ca.Parent.
func (d *Disk) Certify(context.Context, *x509.Certificate, crypto.Signer) (chain, roots []*x509.Certificate, err error) {
	return nil, nil, errSkeleton
}

// SPIREConfig is where a parent is and who we are to it.
type SPIREConfig struct {
	ServerAddress string
	ServerPort    int
	// WorkloadAPISocket is the path or URL of the Workload API that gives us the
	// SVID of a downstream entry.
	WorkloadAPISocket string
	TrustDomain       spiffeid.TrustDomain
}

// SPIRE is a parent SPIRE server or Lanyard issuer. It implements ca.Parent.
type SPIRE struct{ cfg SPIREConfig }

// NewSPIRE returns a SPIRE, which connects when it first certifies.
func NewSPIRE(cfg SPIREConfig) *SPIRE { return &SPIRE{cfg: cfg} }

// Certify implements ca.Parent.
func (s *SPIRE) Certify(context.Context, *x509.Certificate, crypto.Signer) (chain, roots []*x509.Certificate, err error) {
	return nil, nil, errSkeleton
}
