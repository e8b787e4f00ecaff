package upstream

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

const (
	// rpcTimeout is how long one call may take.
	rpcTimeout = 30 * time.Second
	// shortTimeout is that where another issuer can be asked.
	shortTimeout = 10 * time.Second
)

// patience is how long one issuer may take to answer a small question.
func (c *Client) patience() time.Duration {
	if len(c.issuers.addrs) > 1 {
		return shortTimeout
	}
	return rpcTimeout
}

type rpc func(context.Context, *grpc.ClientConn) error

// call makes one call that anyone may make.
func (c *Client) call(ctx context.Context, f rpc) error {
	svid, _ := c.id.current()
	return c.callAs(ctx, svid, c.patience(), f)
}

// agentCall makes one call that the issuer answers to agents only. It takes
// note of what the answer says about this agent.
func (c *Client) agentCall(ctx context.Context, f rpc) error {
	return c.agentCallFor(ctx, c.patience(), f)
}

// agentCallFor is agentCall for a question whose answer may take a while.
func (c *Client) agentCallFor(ctx context.Context, patience time.Duration, f rpc) error {
	svid, _ := c.id.current()
	if svid == nil {
		return errNoSVID // joining anew
	}
	err := c.callAs(ctx, svid, patience, f)
	c.judge(svid, err)
	return err
}

// judge takes note of what the end of a call says about the agent, which showed
// svid.
func (c *Client) judge(svid *x509svid.SVID, err error) {
	if err == nil {
		if err := c.id.confirm(svid); err != nil && c.unsaved.now() {
			c.log.Warn("the agent's last key cannot be removed from the disk", "reason", err)
		}
		return
	}
	reason, denied := denialReason(err)
	if reason == types.PermissionDeniedDetails_AGENT_MUST_REATTEST {
		return // its SVID is good
	}
	if usable(svid) == nil && (status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated) {
		reason, denied = types.PermissionDeniedDetails_AGENT_EXPIRED, true
	}
	if denied {
		c.deny(denial{reason: reason, svid: svid})
	}
}

// callAs makes one call as svid, without a certificate if that is not usable. Each
// issuer is given the time.
func (c *Client) callAs(ctx context.Context, svid *x509svid.SVID, patience time.Duration, f rpc) error {
	return c.round(ctx, func() (string, error) {
		l, done, err := c.links.use(c.issuers.current(), usable(svid))
		if err != nil {
			return c.issuers.current(), err
		}
		defer done()
		err = withTimeout(ctx, patience, func(ctx context.Context) error { return f(ctx, l.conn) })
		if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
			// The other end may be gone without a word.
			c.links.drop(l)
		}
		if ctx.Err() == nil {
			c.heard(l, err)
		}
		return l.addr, l.explain(err)
	})
}

// withTimeout runs one call.
func withTimeout(ctx context.Context, d time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return call(ctx)
}
