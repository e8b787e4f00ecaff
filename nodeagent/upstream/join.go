package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
)

// join returns when there are an SVID that has not expired and a bundle. It goes
// on trying while the issuer is away.
func (c *Client) join(ctx context.Context) error {
	wait := growing{first: 500 * time.Millisecond, most: 15 * time.Second}
	_, stored := c.id.current()
	asking := Asking{Anew: stored != nil}
	for {
		err := c.joinOnce(ctx, &asking)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if c.hopeless(err) {
			return err
		}
		next := wait.next()
		c.attempted(false, err)
		c.log.Warn("cannot join yet", "issuer", c.issuers.current(), "reason", reason(err), "retry_in", next.String())
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
func (c *Client) joinOnce(ctx context.Context, asking *Asking) error {
	svid, stored := c.id.current()
	if usable(svid) != nil && stored != nil {
		return nil
	}
	tlsConfig, err := c.bootstrapTLS(ctx, stored, asking)
	if err != nil {
		return err
	}
	err = c.round(ctx, func() (string, error) {
		addr := c.issuers.current()
		l, err := c.dial(addr, nil, tlsConfig.Clone())
		if err != nil {
			return addr, fatalError{err}
		}
		defer l.conn.Close()
		return addr, l.explain(c.joinOver(ctx, l))
	})
	return c.judgeJoin(err)
}

// joinOver does it over one link.
func (c *Client) joinOver(ctx context.Context, l *link) error {
	if svid, _ := c.id.current(); usable(svid) == nil {
		_, again := c.cfg.Attestor.Kind()
		key, err := c.id.joinKey(again)
		if err != nil {
			return fatalError{err}
		}
		err = withTimeout(ctx, rpcTimeout, func(ctx context.Context) error {
			result, err := c.attest(ctx, l, key)
			if err != nil {
				return err
			}
			if err := c.takeAttested(result); err != nil {
				return fatalError{err}
			}
			return nil
		})
		if err != nil {
			return err
		}
		c.log.Info("agent joined", "id", c.ID(), "issuer", l.addr)
	}
	return withTimeout(ctx, rpcTimeout, func(ctx context.Context) error { return c.firstBundle(ctx, l) })
}

// bootstrapTLS verifies with what the configuration says and with what was
// learned when the agent last joined: either may be the older one. Where the
// configured bundle cannot be had just now, what was learned must do.
func (c *Client) bootstrapTLS(ctx context.Context, stored *x509bundle.Bundle, asking *Asking) (*tls.Config, error) {
	patience := rpcTimeout
	if stored != nil {
		patience /= 10
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	configured, err := c.configuredBundle(ctx, asking)
	if err != nil && stored == nil {
		return nil, err
	}
	if err != nil {
		c.log.Debug("joining with the bundle of before", "reason", err)
	}
	if stored == nil && configured == nil {
		return insecureTLS(c.cfg.TrustDomain), nil
	}
	bundle := merge(c.cfg.TrustDomain, stored, configured)
	src := linkSource{td: c.cfg.TrustDomain, bundle: func() *x509bundle.Bundle { return bundle }}
	return src.tlsConfig(), nil
}

// firstBundle takes the trust domain's bundle over the connection that the agent
// joined on, and checks that the agent's SVID verifies with it.
func (c *Client) firstBundle(ctx context.Context, l *link) error {
	bundle, err := c.fetchFirst(ctx, l)
	if err != nil {
		return err
	}
	svid, _ := c.id.current()
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return fatal("the agent's SVID does not verify with the issuer's bundle: %w", err)
	}
	c.setBundle(bundle.X509Authorities(), nil)
	return nil
}

// fetchFirst fetches the trust domain's bundle over a link.
func (c *Client) fetchFirst(ctx context.Context, l *link) (*x509bundle.Bundle, error) {
	p, err := bundlev1.NewBundleClient(l.conn).GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: bundleMask()})
	if err != nil {
		return nil, err
	}
	bundle, err := parseBundle(p)
	if err != nil {
		return nil, fatal("the issuer's bundle is not usable: %w", err)
	}
	if bundle.TrustDomain() != c.cfg.TrustDomain {
		return nil, fatal("the issuer is of trust domain %q, the agent's trust domain is %q: set trust_domain or server_address", bundle.TrustDomain().Name(), c.cfg.TrustDomain.Name())
	}
	return bundle, nil
}

// judgeJoin tells what waiting may mend from what it can't.
func (c *Client) judgeJoin(err error) error {
	if err == nil || isFatal(err) {
		return err
	}
	if c.unverified(err) {
		text := "issuer %s: %w: check trust_domain, server_address and that the trust bundle is this issuer's"
		if c.cfg.TrustSource != nil { // it may be another the next time
			return fmt.Errorf(text, c.askedText(), err)
		}
		return fatal(text, c.askedText(), err)
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
		return fatal("issuer %s does not let this agent join: %s", c.askedText(), st.Message())
	case codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return fatal("issuer %s: %w", c.askedText(), err)
	}
	return err
}

// unverified reports whether no issuer that was asked could be verified: one that
// is merely away may still be the right one.
func (c *Client) unverified(err error) bool {
	all := []error{err}
	if failed, ok := errors.AsType[roundError](err); ok {
		all = failed.Unwrap()
	}
	return !slices.ContainsFunc(all, func(err error) bool {
		_, ok := errors.AsType[*unverifiedError](err)
		return !ok
	})
}

// askedText names the issuer in use, or all of them: a text for errors that any
// may have caused.
func (c *Client) askedText() string { return strings.Join(c.issuers.addrs, ", ") }

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
