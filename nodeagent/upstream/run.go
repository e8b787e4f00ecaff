package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Run joins, if need be, and keeps the agent's own SVID fresh until ctx ends. It
// outlasts an issuer that is away. It returns a [*RefusedError] when the issuer
// refuses the agent, and the cause when joining cannot work.
func (c *Client) Run(ctx context.Context) error {
	defer c.links.close()
	defer c.id.settle() // a last try
	ctx, cancel := context.WithCancel(ctx)
	var returning sync.WaitGroup
	returning.Go(func() { c.returnHome(ctx) })
	defer returning.Wait()
	defer cancel()
	wait := growing{first: time.Second, most: time.Minute}
	for refusals := 1; ; refusals++ {
		err := c.join(ctx)
		if refused, ok := errors.AsType[*RefusedError](err); ok && refused.again {
			c.log.Warn("the issuer knows this node no more: joining as if for the first time", "id", refused.ID)
			c.undeleted(c.id.forget())
			continue
		}
		if err != nil {
			return err
		}
		if c.cfg.Rebootstrap.Mode == RebootstrapAlways {
			if err := c.needsReattestable(); err != nil {
				return err
			}
		}
		select {
		case <-c.joined:
		default:
			close(c.joined)
		}
		began := time.Now()
		refused, err := c.keep(ctx)
		if err != nil {
			return err
		}
		if err := c.drop(ctx, refused); err != nil {
			return err
		}
		if time.Since(began) > 2*wait.most {
			wait.reset()
			refusals = 1
		}
		if refusals == 1 {
			continue
		}
		// Two machines with one identity put each other out for ever: not too fast.
		if err := pause(ctx, wait.next()); err != nil {
			return err
		}
	}
}

// undeleted tells that SVID and keys are on disk still that the agent has forgotten,
// which does not keep it from getting others.
func (c *Client) undeleted(err error) {
	if err != nil {
		c.log.Error("the agent's former SVID and key cannot be deleted: make space in data_dir, or make it writable", "data_dir", c.cfg.DataDir, "reason", err)
	}
}

// drop deletes the refused SVID. It is nil if there is something to join anew with.
// One that has expired by this machine's clock stays: it is not used, and if it
// was the clock that erred, it is good again when that is mended.
func (c *Client) drop(ctx context.Context, refused *RefusedError) error {
	anew := refused.Reason != types.PermissionDeniedDetails_AGENT_BANNED && c.canJoinAnew(ctx, refused.ID)
	svid, _ := c.id.current()
	if refused.Reason != types.PermissionDeniedDetails_AGENT_EXPIRED || usable(svid) != nil {
		err := c.id.forget()
		if err != nil && !anew {
			return fmt.Errorf("%w; and it could not be deleted: %w", refused, err)
		}
		c.undeleted(err)
	}
	if !anew {
		return refused
	}
	method, _ := c.cfg.Attestor.Kind()
	c.log.Warn("the issuer refuses the agent's SVID: joining anew", "id", refused.ID, "reason", refused.Reason.String(), "method", method)
	return nil
}

// canJoinAnew reports whether the agent can prove itself again, or has another
// token than the one that agent id joined with.
func (c *Client) canJoinAnew(ctx context.Context, id spiffeid.ID) bool {
	method, again := c.cfg.Attestor.Kind()
	if again || method != nodeattest.JoinToken {
		return again
	}
	proof, err := c.cfg.Attestor.Begin(ctx, Attempt{TrustDomain: c.cfg.TrustDomain})
	if err != nil {
		return false
	}
	joined, err := nodeattest.JoinTokenAgentID(c.cfg.TrustDomain, string(proof.Payload))
	return err == nil && joined != id
}
