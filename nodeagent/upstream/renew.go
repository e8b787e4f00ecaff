package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// longestSleep bounds how long a step of the clock goes unnoticed: timers stop
// while the machine is suspended, certificates don't.
const longestSleep = 30 * time.Second

// keep renews the agent's SVID at half its life until ctx ends or the issuer
// refuses the agent.
func (c *Client) keep(ctx context.Context) (*RefusedError, error) {
	wait := growing{first: time.Second, most: time.Minute}
	var notBefore time.Time // of the next try
	for {
		due := c.id.renewal()
		if notBefore.After(due) {
			due = notBefore
		}
		timer := time.NewTimer(min(time.Until(due), longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case d := <-c.denials:
			timer.Stop()
			refused, err := c.examine(d)
			if refused != nil || err != nil {
				return refused, err
			}
			continue
		case <-timer.C:
		}
		if time.Now().Before(due) {
			continue
		}
		err := c.renew(ctx)
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			return refused, nil
		}
		if err != nil {
			pause := c.beforeExpiry(wait.next())
			notBefore = time.Now().Round(0).Add(jitter(pause))
			c.log.Warn("cannot renew the agent's SVID yet", "reason", reason(err), "retry_in", pause.String())
			continue
		}
		wait.reset()
		notBefore = time.Time{}
	}
}

// beforeExpiry shortens d so that several tries fit before the SVID expires.
func (c *Client) beforeExpiry(d time.Duration) time.Duration {
	svid, _ := c.id.current()
	left := time.Until(svid.Certificates[0].NotAfter)
	if left <= 0 {
		return d
	}
	return max(min(d, left/4), 250*time.Millisecond)
}

// examine decides about a denial: of an SVID replaced meanwhile it says nothing.
func (c *Client) examine(d denial) (*RefusedError, error) {
	svid, _ := c.id.current()
	if d.svid != svid {
		return nil, nil
	}
	if d.reason == types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		// The issuer lost the renewal but may know the SVID before it.
		reverted, err := c.id.revert(svid, time.Now())
		if reverted || err != nil {
			return nil, err
		}
	}
	return &RefusedError{ID: svid.ID, Reason: d.reason}, nil
}

// renew gets a new SVID for a new key: by attesting again where the issuer wants
// that of this agent, by RenewAgent otherwise.
func (c *Client) renew(ctx context.Context) error {
	_, again := c.cfg.Attestor.Kind()
	if again && c.id.reattestable() {
		return c.reattest(ctx)
	}
	err := c.renewAgent(ctx)
	if reason, _ := denialReason(err); reason != types.PermissionDeniedDetails_AGENT_MUST_REATTEST {
		return err
	}
	if !again {
		method, _ := c.cfg.Attestor.Kind()
		return fmt.Errorf("the issuer wants this agent to attest again, which it cannot by %s: configure the NodeAttestor that it joined with: %w", method, err)
	}
	return c.reattest(ctx)
}

// reattest joins again while the SVID is good still. The issuer lets go of the
// old SVID at once; should its answer be lost, the agent attests once more.
func (c *Client) reattest(ctx context.Context) error {
	before, _ := c.id.current()
	key, err := c.id.renewalKey()
	if err != nil {
		return err
	}
	// Not bootstrapTLS: what the configuration trusts may have been revoked since.
	l, err := dial(c.cfg.ServerAddress, nil, c.source(nil).tlsConfig())
	if err != nil {
		return err
	}
	defer l.conn.Close()
	if err := withTimeout(ctx, func(ctx context.Context) error { return c.attest(ctx, l, key) }); err != nil {
		return l.explain(err)
	}
	after, _ := c.id.current()
	c.log.Info("agent attested again", "id", after.ID, "expires", after.Certificates[0].NotAfter)
	if after.ID != before.ID {
		c.log.Warn("the agent has another ID now: entries name their parent by it", "id", after.ID, "before", before.ID)
	}
	return nil
}

// renewAgent gets a new SVID by the old one (spire.api.server.agent.v1, RenewAgent).
// The issuer lets go of the old one when it first sees the new one in use, which
// is at once: the next call opens a new connection.
func (c *Client) renewAgent(ctx context.Context) error {
	key, err := c.id.renewalKey()
	if err != nil {
		return err
	}
	csr, err := agentCSR(key)
	if err != nil {
		return err
	}
	var resp *agentv1.RenewAgentResponse
	err = c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = agentv1.NewAgentClient(conn).RenewAgent(ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
		return err
	})
	if err != nil {
		return err
	}
	before, _ := c.id.current()
	if err := c.takeSVID(resp.Svid, false); err != nil {
		return err
	}
	after, _ := c.id.current()
	if after.ID != before.ID {
		_, err := c.id.revert(after, time.Now())
		return errors.Join(fmt.Errorf("the issuer renewed agent %s as %s", before.ID, after.ID), err)
	}
	c.log.Info("agent SVID renewed", "id", after.ID, "expires", after.Certificates[0].NotAfter)
	return nil
}
