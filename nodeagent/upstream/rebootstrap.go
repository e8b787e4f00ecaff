package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// mayRebootstrap reports whether the agent may begin anew, as it is now.
func (c *Client) mayRebootstrap() bool {
	_, again := c.cfg.Attestor.Kind()
	return c.cfg.Rebootstrap.Mode != RebootstrapNever && again && (c.cfg.TrustSource != nil || c.cfg.TrustBundle != nil) && c.id.reattestable()
}

// needsReattestable refuses to run where rebootstrap_mode always cannot be had.
func (c *Client) needsReattestable() error {
	if c.id.reattestable() {
		return nil
	}
	method, _ := c.cfg.Attestor.Kind()
	return fmt.Errorf("rebootstrap_mode is always, but the issuer does not let this agent attest anew by %s: change that at the issuer, or set rebootstrap_mode to auto or never", method)
}

// rebootstrapAt returns when the agent begins anew, as things are now; zero: not.
func (c *Client) rebootstrapAt() time.Time {
	at, distrusted := c.mistake.over(c.cfg.Rebootstrap.Delay)
	if !distrusted || !c.mayRebootstrap() {
		return time.Time{}
	}
	return at
}

// rebootstrap begins anew with the configured bundle alone: whoever is verified
// by it, and lets this agent attest, is its issuer from now on. What the agent had
// is gone when that has worked, and not before: else whoever stands in the way of
// the issuer for a while could take the agent's SVID from it.
func (c *Client) rebootstrap(ctx context.Context, asking *Asking) error {
	bundle, err := c.configuredBundle(ctx, asking)
	if err != nil {
		return err
	}
	key, err := c.id.renewalKey(false, time.Now())
	if err != nil {
		return err
	}
	src := linkSource{td: c.cfg.TrustDomain, bundle: func() *x509bundle.Bundle { return bundle }}
	return c.round(ctx, func() (string, error) {
		addr := c.issuers.current()
		l, err := c.dial(addr, nil, src.tlsConfig())
		if err != nil {
			return addr, err
		}
		defer l.conn.Close()
		return addr, l.explain(withTimeout(ctx, rpcTimeout, func(ctx context.Context) error {
			result, err := c.attest(ctx, l, key)
			if err != nil {
				return err
			}
			chain, err := parseChain(result.GetSvid().GetCertChain())
			if err != nil {
				return fmt.Errorf("the issuer's answer has no usable agent SVID: %w", err)
			}
			first, err := c.fetchFirst(ctx, l)
			if err != nil {
				return err
			}
			if _, _, err := x509svid.Verify(chain, first); err != nil {
				return fmt.Errorf("the agent's SVID does not verify with the issuer's bundle: %w", err)
			}
			return c.id.replace(chain, result.GetReattestable(), first.X509Authorities(), time.Now())
		}))
	})
}

// beginAnew does it and tells.
func (c *Client) beginAnew(ctx context.Context, asking *Asking) error {
	c.log.Warn("the issuer is of an authority that the agent does not know: beginning anew with the configured trust bundle",
		"issuer", c.issuers.current(), "rebootstrap_delay", c.cfg.Rebootstrap.Delay.String())
	if err := c.rebootstrap(ctx, asking); err != nil {
		return err
	}
	c.mistake.note(nil)
	c.anew.Add(1)
	c.moved.fire()
	c.log.Warn("the agent has begun anew: the trust domain has other authorities than before", "id", c.ID())
	return nil
}
