package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
)

// BundleSource has the trust domain's bundle that an agent first verifies its
// issuer with. Those there are in package trust.
type BundleSource interface {
	// Bundle reads the bundle anew. The agent asks again later, unless the error
	// is one of [Hopeless].
	Bundle(ctx context.Context) (*x509bundle.Bundle, error)
}

// Hopeless marks an error of a [BundleSource] that waiting can't mend.
func Hopeless(err error) error { return fatalError{err} }

// Asking says why a [BundleSource] is asked; its context has it.
type Asking struct {
	// Anew says that the agent has had a bundle before.
	Anew bool
	// Attempt counts from 1, and Began is when the first was made. Both begin
	// again once the agent has joined.
	Attempt int
	Began   time.Time
	// Issuer is the host:port that the bundle is to verify.
	Issuer string
}

type askingKey struct{}

// AskingFrom returns the zero Asking where ctx has none.
func AskingFrom(ctx context.Context) Asking {
	asking, _ := ctx.Value(askingKey{}).(Asking)
	return asking
}

// configuredBundle returns the bundle of the configuration, as it is now; nil
// where there is none. asking is kept by the caller from one attempt to the next.
func (c *Client) configuredBundle(ctx context.Context, asking *Asking) (*x509bundle.Bundle, error) {
	if c.cfg.TrustSource == nil {
		return c.cfg.TrustBundle, nil
	}
	if asking.Attempt++; asking.Attempt == 1 {
		asking.Began = time.Now()
	}
	asking.Issuer = c.issuers.current()
	bundle, err := c.cfg.TrustSource.Bundle(context.WithValue(ctx, askingKey{}, *asking))
	if err != nil {
		return nil, &sourceError{err}
	}
	if bundle.Empty() || bundle.TrustDomain() != c.cfg.TrustDomain {
		return nil, &sourceError{fmt.Errorf("it is of trust domain %q with %d authorities, the agent's trust domain is %q", bundle.TrustDomain().Name(), len(bundle.X509Authorities()), c.cfg.TrustDomain.Name())}
	}
	return bundle, nil
}

// sourceError says that the trust bundle cannot be had where it should come from.
type sourceError struct{ error }

func (e *sourceError) Error() string { return "cannot get the trust bundle: " + e.error.Error() }

func (e *sourceError) Unwrap() error { return e.error }
