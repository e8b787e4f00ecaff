package upstream

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
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
		if isFatal(err) {
			return err
		}
		next := wait.next()
		c.log.Warn("cannot join yet", "issuer", c.cfg.ServerAddress, "reason", err, "retry_in", next.String())
		if err := pause(ctx, next); err != nil {
			return err
		}
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
		if c.cfg.JoinToken == "" {
			if svid == nil {
				return fatalError{ErrNoIdentity}
			}
			return fatalError{&RefusedError{ID: svid.ID, Reason: types.PermissionDeniedDetails_AGENT_EXPIRED}}
		}
		if err := withTimeout(ctx, func(ctx context.Context) error { return c.attest(ctx, l) }); err != nil {
			return c.judgeJoin(l.explain(err))
		}
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

// attest shows the token and takes the agent's SVID (spire.api.server.agent.v1,
// AttestAgent).
func (c *Client) attest(ctx context.Context, l *link) error {
	payload, err := nodeattest.ProveJoinToken(c.cfg.JoinToken)
	if err != nil {
		return fatalError{err}
	}
	key, err := c.id.joinKey()
	if err != nil {
		return fatalError{err}
	}
	csr, err := agentCSR(key)
	if err != nil {
		return fatalError{err}
	}
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := agentv1.NewAgentClient(l.conn).AttestAgent(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: nodeattest.JoinToken, Payload: payload},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}); err != nil {
		// The reason comes with Recv.
		c.log.Debug("sending the join token", "err", err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return err
	}
	result := resp.GetResult()
	if result == nil {
		return fatal("the issuer asks more than a join token of this agent")
	}
	if err := c.takeSVID(result.Svid, result.Reattestable); err != nil {
		return fatalError{err}
	}
	c.log.Info("agent joined", "id", c.ID(), "issuer", c.cfg.ServerAddress)
	return stream.CloseSend()
}

// takeSVID stores an SVID of the agent.
func (c *Client) takeSVID(p *types.X509SVID, reattestable bool) error {
	chain, err := parseChain(p.GetCertChain())
	if err != nil {
		return fmt.Errorf("the issuer's answer has no usable agent SVID: %w", err)
	}
	return c.id.setSVID(chain, reattestable, time.Now())
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
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch {
	case st.Code() == codes.InvalidArgument && st.Message() == nodeattest.TokenSpent:
		return fatal("join token %s is unknown to issuer %s or was used already: %s", redacted(c.cfg.JoinToken), c.cfg.ServerAddress, newTokenMend)
	case st.Code() == codes.InvalidArgument && st.Message() == nodeattest.TokenExpired:
		return fatal("join token %s has expired: %s", redacted(c.cfg.JoinToken), newTokenMend)
	case st.Code() == codes.PermissionDenied:
		return fatal("issuer %s does not let this agent join: %s", c.cfg.ServerAddress, st.Message())
	case st.Code() == codes.InvalidArgument, st.Code() == codes.Unimplemented, st.Code() == codes.FailedPrecondition:
		return fatal("issuer %s: %w", c.cfg.ServerAddress, err)
	}
	return err
}

// redacted names a token without giving it away: its first characters.
func redacted(token string) string {
	const shown = 8
	if len(token) <= 2*shown {
		return "(not shown)"
	}
	return token[:shown] + "…"
}

// hasNewToken reports whether the configured token is another than the one that
// agent id joined with.
func (c *Client) hasNewToken(id spiffeid.ID) bool {
	if c.cfg.JoinToken == "" {
		return false
	}
	joined, err := nodeattest.JoinTokenAgentID(c.cfg.TrustDomain, c.cfg.JoinToken)
	return err == nil && joined != id
}

// agentCSR is the request that spire-agent sends: the issuer uses its public
// key alone.
func agentCSR(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
	}, key)
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
	return &types.BundleMask{X509Authorities: true, SequenceNumber: true}
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
