package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Parent certifies this issuer's authorities. It is the seam for upstream
// authorities; without one, each authority certifies itself. A Parent may also
// be a [Watcher] and a [JWTPublisher].
type Parent interface {
	// Certify returns a certificate for the key. It may be slow, and fail: it is
	// called again later.
	Certify(ctx context.Context, req CertifyRequest) (Certified, error)
}

// CertifyRequest is what a parent is asked to certify.
type CertifyRequest struct {
	// Template has the profile, with the validity that is wished for.
	Template *x509.Certificate
	Key      crypto.Signer
	TTL      time.Duration
}

// Certified is a parent's answer.
type Certified struct {
	// Chain begins with the certificate of the key; the intermediates up to a
	// root follow. The root is left out, unless it is the certificate itself.
	Chain []*x509.Certificate
	// Roots are to be in the bundle before the key signs anything.
	Roots []Root
}

// Root is a certificate to be trusted.
type Root struct {
	Certificate *x509.Certificate
	Tainted     bool // and not for much longer
}

// Roots are what a parent's trust domain trusts: our own, as it is the same one.
type Roots struct {
	X509 []Root
	JWT  []*types.JWTKey
	// Sequence is higher with each change; 0 where that is not known.
	Sequence uint64
}

// Watcher is a [Parent] whose roots change without our doing.
type Watcher interface {
	// Watch calls update with all roots when they have changed, and again as
	// long as update fails, until ctx is done.
	Watch(ctx context.Context, update func(context.Context, Roots) error)
}

// JWTPublisher is a [Parent] that tells others of our JWT authorities.
type JWTPublisher interface {
	// PublishJWTKey returns all JWT keys of the trust domain. The error wraps
	// [ErrNoJWTUpstream] if the parent has nothing to do with JWT.
	PublishJWTKey(ctx context.Context, key *types.JWTKey) ([]*types.JWTKey, error)
}

// ErrNoJWTUpstream says that JWT authorities are known below this issuer alone.
var ErrNoJWTUpstream = errors.New("upstream authority does not take JWT authorities")

type selfSigned struct{}

func (selfSigned) Certify(_ context.Context, req CertifyRequest) (Certified, error) {
	cert, err := certify(req.Template, req.Template, req.Key.Public(), req.Key)
	if err != nil {
		return Certified{}, err
	}
	return Certified{Chain: []*x509.Certificate{cert}, Roots: []Root{{Certificate: cert}}}, nil
}

// upstream reports whether there is an authority above ours.
func (a *Authority) upstream() bool { return a.cfg.Parent != Parent(selfSigned{}) }

// presented returns what of an authority's chain goes behind the leaves that it
// signs: nothing of one that certified itself, since verifiers have it as root.
func presented(chain []*x509.Certificate) []*x509.Certificate {
	if len(chain) == 1 && chain[0].CheckSignatureFrom(chain[0]) == nil {
		return nil
	}
	return chain
}

// validate has the new authority sign a leaf and verifies that as any peer will:
// a parent may have path lengths, name constraints or roots that don't fit. It
// returns the root.
func (a *Authority) validate(c Certified, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	if len(c.Chain) == 0 || len(c.Roots) == 0 {
		return nil, errors.New("the answer has no certificate or no root")
	}
	cert := c.Chain[0]
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, errors.New("the certificate is of another key")
	}
	if err := checkCA(cert, a.cfg.TrustDomain); err != nil {
		return nil, fmt.Errorf("the certificate is no SPIFFE signing certificate: %w", err)
	}
	throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := Params{ID: spiffeid.RequireFromSegments(a.cfg.TrustDomain, "spire", "throwaway"), PublicKey: throwaway.Public(), TTL: a.cfg.X509SVIDTTL}
	template, err := svidTemplate(cert, p, now)
	if err != nil {
		return nil, err
	}
	leaf, err := certify(template, cert, p.PublicKey, key)
	if err != nil {
		return nil, err
	}
	var roots []*x509.Certificate
	for _, root := range c.Roots {
		roots = append(roots, root.Certificate)
	}
	chains, err := verify(append([]*x509.Certificate{leaf}, c.Chain...), roots, now)
	if err != nil {
		return nil, fmt.Errorf("a leaf that it signs is not valid below the roots: %w", err)
	}
	return chains[0][len(chains[0])-1], nil
}

// verify returns the ways from the leaf to a root.
func verify(chain, roots []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if _, err := x509svid.IDFromCert(chain[0]); err != nil {
		return nil, err
	}
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime:   now,
	}
	for _, root := range roots {
		opts.Roots.AddCert(root)
	}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	return chain[0].Verify(opts)
}

// checkCA holds cert against the X509-SVID standard, sections 3.2, 4.1 and 4.3,
// as SPIRE does.
func checkCA(cert *x509.Certificate, td spiffeid.TrustDomain) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("it is not a CA")
	case cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it lacks the key usage keyCertSign")
	case cert.KeyUsage&^(x509.KeyUsageCertSign|x509.KeyUsageCRLSign|x509.KeyUsageDigitalSignature) != 0:
		return errors.New("it has key usages besides keyCertSign, cRLSign and digitalSignature")
	case len(cert.URIs) > 1:
		return errors.New("it has more than one URI SAN")
	case len(cert.URIs) == 1 && cert.URIs[0].String() != td.IDString():
		return fmt.Errorf("its URI SAN is %q, want %q", cert.URIs[0], td.IDString())
	case len(cert.SubjectKeyId) == 0:
		return errors.New("it has no subject key identifier")
	}
	return nil
}
