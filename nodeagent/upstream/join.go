package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// join returns when there are an SVID that has not expired and a bundle. It goes
// on trying while the issuer is away.
func (c *Client) join(ctx context.Context) error {
	wait := growing{first: 500 * time.Millisecond, most: 15 * time.Second}
	for {
		err := c.joinOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if c.hopeless(err) {
			return err
		}
		next := wait.next()
		c.log.Warn("cannot join yet", "issuer", c.cfg.ServerAddress, "reason", reason(err), "retry_in", next.String())
		if err := pause(ctx, next); err != nil {
			return err
		}
	}
}

// hopeless reports whether there is no point in another try. An agent that has
// served workloads goes on where it can prove itself again: its certificate may be
// replaced, or the issuer's configuration mended, while it runs.
func (c *Client) hopeless(err error) bool {
	_, refused := errors.AsType[*RefusedError](err)
	if _, token := errors.AsType[tokenError](err); refused || token {
		return true
	}
	_, again := c.cfg.Attestor.Kind()
	select {
	case <-c.joined:
		return isFatal(err) && !again
	default:
		return isFatal(err)
	}
}

// joinOnce does what is missing; each step is on disk before the next.
func (c *Client) joinOnce(ctx context.Context) error {
	svid, bundle := c.id.current()
	if usable(svid) != nil && bundle != nil {
		return nil
	}
	l, err := dial(c.cfg.ServerAddress, nil, c.bootstrapTLS(bundle))
	if err != nil {
		return fatalError{err}
	}
	defer l.conn.Close()
	if usable(svid) == nil {
		key, err := c.id.joinKey()
		if err != nil {
			return fatalError{err}
		}
		if err := withTimeout(ctx, func(ctx context.Context) error { return c.attest(ctx, l, key) }); err != nil {
			return c.judgeJoin(l.explain(err))
		}
		c.log.Info("agent joined", "id", c.ID(), "issuer", c.cfg.ServerAddress)
	}
	return c.judgeJoin(l.explain(withTimeout(ctx, func(ctx context.Context) error { return c.firstBundle(ctx, l) })))
}

// bootstrapTLS verifies with what the configuration says and with what was
// learned when the agent last joined: either may be the older one.
func (c *Client) bootstrapTLS(stored *x509bundle.Bundle) *tls.Config {
	if stored == nil && c.cfg.TrustBundle == nil {
		return insecureTLS(c.cfg.TrustDomain)
	}
	bundle := merge(c.cfg.TrustDomain, stored, c.cfg.TrustBundle)
	src := linkSource{td: c.cfg.TrustDomain, bundle: func() *x509bundle.Bundle { return bundle }}
	return src.tlsConfig()
}

// firstBundle takes the trust domain's bundle over the connection that the agent
// joined on, and checks that the agent's SVID verifies with it.
func (c *Client) firstBundle(ctx context.Context, l *link) error {
	p, err := bundlev1.NewBundleClient(l.conn).GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: bundleMask()})
	if err != nil {
		return err
	}
	bundle, err := parseBundle(p)
	if err != nil {
		return fatal("the issuer's bundle is not usable: %w", err)
	}
	if bundle.TrustDomain() != c.cfg.TrustDomain {
		return fatal("the issuer is of trust domain %q, the agent's trust domain is %q: set trust_domain or server_address", bundle.TrustDomain().Name(), c.cfg.TrustDomain.Name())
	}
	svid, _ := c.id.current()
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return fatal("the agent's SVID does not verify with the issuer's bundle: %w", err)
	}
	return c.id.setBundle(bundle.X509Authorities())
}

// judgeJoin tells what waiting may mend from what it can't.
func (c *Client) judgeJoin(err error) error {
	if err == nil || isFatal(err) {
		return err
	}
	if _, ok := errors.AsType[*unverifiedError](err); ok {
		return fatal("issuer %s: %w: check trust_domain, server_address and that the trust bundle is this issuer's", c.cfg.ServerAddress, err)
	}
	if _, ok := errors.AsType[*attestorError](err); ok {
		if _, waits := errors.AsType[transientError](err); waits {
			return err
		}
		return fatalError{err}
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch st.Code() {
	case codes.PermissionDenied:
		return fatal("issuer %s does not let this agent join: %s", c.cfg.ServerAddress, st.Message())
	case codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return fatal("issuer %s: %w", c.cfg.ServerAddress, err)
	}
	return err
}

// parseChain reads DER certificates, leaf first; none is an error.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, errors.New("no certificate")
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		chain[i] = cert
	}
	return chain, nil
}

func bundleMask() *types.BundleMask {
	return &types.BundleMask{X509Authorities: true, JwtAuthorities: true, SequenceNumber: true}
}

// parseBundle reads the X.509 part of a bundle.
func parseBundle(p *types.Bundle) (*x509bundle.Bundle, error) {
	td, err := spiffeid.TrustDomainFromString(p.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	bundle := x509bundle.New(td)
	for i, authority := range p.GetX509Authorities() {
		// asn1 may hold several certificates.
		certs, err := x509.ParseCertificates(authority.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("X.509 authority %d of %q: %w", i, td.Name(), err)
		}
		for _, cert := range certs {
			bundle.AddX509Authority(cert)
		}
	}
	if bundle.Empty() {
		return nil, fmt.Errorf("bundle of %q has no X.509 authority", td.Name())
	}
	return bundle, nil
}
