package upstream

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// DefaultPoll is how often the parent is asked for its bundle, SPIRE's.
const DefaultPoll = 5 * time.Second

// callTimeout bounds one call to the parent, and one to the Workload API.
const callTimeout = 20 * time.Second

// SPIREConfig is where a parent is and who we are to it.
type SPIREConfig struct {
	ServerAddress string // host name or IP address
	ServerPort    int
	// WorkloadAPISocket is the path or URI of the Workload API that gives us the
	// SVID of a downstream entry. It is that of an agent of the parent.
	WorkloadAPISocket string
	TrustDomain       spiffeid.TrustDomain
	Poll              time.Duration // 0 is DefaultPoll
	Now               func() time.Time
	Log               *slog.Logger // nil discards
}

// SPIRE is a parent SPIRE server or Lanyard issuer. It implements [ca.Parent],
// [ca.Watcher] and [ca.JWTPublisher].
type SPIRE struct {
	cfg  SPIREConfig
	link link
}

// NewSPIRE returns a SPIRE, which connects when it is first needed.
func NewSPIRE(cfg SPIREConfig) *SPIRE {
	if cfg.Poll <= 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &SPIRE{cfg: cfg, link: link{cfg: cfg}}
}

// Close ends the connection. A later call makes another.
func (s *SPIRE) Close() { s.link.close() }

// Certify implements [ca.Parent].
func (s *SPIRE) Certify(ctx context.Context, req ca.CertifyRequest) (ca.Certified, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         req.Template.Subject,
		URIs:            req.Template.URIs,
		ExtraExtensions: req.Template.ExtraExtensions,
	}, req.Key)
	if err != nil {
		return ca.Certified{}, err
	}
	var certified ca.Certified
	err = s.link.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := svidv1.NewSVIDClient(conn).NewDownstreamX509CA(ctx, &svidv1.NewDownstreamX509CARequest{
			Csr:          csr,
			PreferredTtl: int32(min(req.TTL/time.Second, math.MaxInt32)),
		})
		if err != nil {
			return err
		}
		for i, der := range resp.GetCaCertChain() {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("certificate %d of the chain: %w", i+1, err)
			}
			certified.Chain = append(certified.Chain, cert)
		}
		// Unlike this answer, the bundle says which roots are tainted.
		roots, err := s.bundle(ctx, conn)
		certified.Roots = roots.X509
		return err
	})
	if err != nil {
		return ca.Certified{}, s.explain("ask for an authority", err)
	}
	return certified, nil
}

// PublishJWTKey implements [ca.JWTPublisher].
func (s *SPIRE) PublishJWTKey(ctx context.Context, key *types.JWTKey) ([]*types.JWTKey, error) {
	var keys []*types.JWTKey
	err := s.link.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := bundlev1.NewBundleClient(conn).PublishJWTAuthority(ctx, &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
		keys = resp.GetJwtAuthorities()
		return err
	})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("%w: %w", ca.ErrNoJWTUpstream, err)
	case err != nil:
		return nil, s.explain("publish a JWT authority", err)
	}
	return keys, nil
}

// Watch implements [ca.Watcher]: it polls, as SPIRE does.
func (s *SPIRE) Watch(ctx context.Context, update func(context.Context, ca.Roots) error) {
	defer s.Close()
	ticker := time.NewTicker(s.cfg.Poll)
	defer ticker.Stop()
	var applied *types.Bundle
	failing := ""
	for {
		err := s.poll(ctx, &applied, update)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != failing:
			failing = err.Error()
			s.cfg.Log.Warn("the bundle of the upstream authority is not taken over, trying again", "error", err)
		case err == nil && failing != "":
			failing = ""
			s.cfg.Log.Info("the bundle of the upstream authority is taken over again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// poll asks once, and updates if there is anything new since applied.
func (s *SPIRE) poll(ctx context.Context, applied **types.Bundle, update func(context.Context, ca.Roots) error) error {
	var raw *types.Bundle
	var roots ca.Roots
	err := s.link.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		if raw, err = bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{}); err != nil {
			return err
		}
		roots, err = s.parse(raw)
		return err
	})
	if err != nil {
		return s.explain("get the bundle", err)
	}
	if *applied != nil && proto.Equal(*applied, raw) {
		return nil
	}
	if err := update(ctx, roots); err != nil {
		return err
	}
	*applied = raw
	return nil
}

func (s *SPIRE) bundle(ctx context.Context, conn *grpc.ClientConn) (ca.Roots, error) {
	bundle, err := bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return ca.Roots{}, err
	}
	return s.parse(bundle)
}

// parse reads a bundle, which must be that of our own trust domain.
func (s *SPIRE) parse(bundle *types.Bundle) (ca.Roots, error) {
	if td := bundle.GetTrustDomain(); td != s.cfg.TrustDomain.Name() && td != s.cfg.TrustDomain.IDString() {
		return ca.Roots{}, fmt.Errorf("the bundle is that of trust domain %q, want %q", td, s.cfg.TrustDomain.Name())
	}
	roots := ca.Roots{Sequence: bundle.GetSequenceNumber()}
	for i, authority := range bundle.GetX509Authorities() {
		// SPIRE concatenates certificates nowhere in this field, but the field may.
		certs, err := x509.ParseCertificates(authority.GetAsn1())
		if err != nil {
			return ca.Roots{}, fmt.Errorf("X.509 authority %d of the bundle: %w", i+1, err)
		}
		for _, cert := range certs {
			roots.X509 = append(roots.X509, ca.Root{Certificate: cert, Tainted: authority.GetTainted()})
		}
	}
	if len(roots.X509) == 0 {
		return ca.Roots{}, errors.New("the bundle has no X.509 authority")
	}
	for i, key := range bundle.GetJwtAuthorities() {
		if _, err := x509.ParsePKIXPublicKey(key.GetPublicKey()); err != nil || key.GetKeyId() == "" {
			return ca.Roots{}, fmt.Errorf("JWT authority %d of the bundle (%q) cannot be read", i+1, key.GetKeyId())
		}
		roots.JWT = append(roots.JWT, key)
	}
	return roots, nil
}

// explain names the parent, and what is missing there.
func (s *SPIRE) explain(what string, err error) error {
	err = fmt.Errorf("upstream authority spire: %s of %s: %w", what, s.link.address(), err)
	if status.Code(err) == codes.PermissionDenied {
		err = fmt.Errorf("%w: give this issuer's entry there the flag downstream", err)
	}
	return err
}
