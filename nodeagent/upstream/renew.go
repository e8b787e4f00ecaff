package upstream

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

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
	key, err := c.id.renewalKey(true, time.Now())
	if err != nil {
		return err
	}
	err = c.round(ctx, func() (string, error) {
		addr := c.issuers.current()
		// Not bootstrapTLS: what the configuration trusts may have been revoked since.
		l, err := c.dialTrusted(addr, nil)
		if err != nil {
			return addr, err
		}
		defer l.conn.Close()
		return addr, l.explain(withTimeout(ctx, rpcTimeout, func(ctx context.Context) error {
			result, err := c.attest(ctx, l, key)
			if err != nil {
				return err
			}
			return c.takeAttested(result)
		}))
	})
	if err != nil {
		return err
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
	key, err := c.id.renewalKey(true, time.Now())
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
	err = c.takeSVID(resp.Svid, func(chain []*x509.Certificate) error { return c.id.renewSVID(chain, time.Now()) })
	if err != nil {
		return err
	}
	after, _ := c.id.current()
	if after.ID != before.ID {
		c.id.revert(after, time.Now())
		return fmt.Errorf("the issuer renewed agent %s as %s", before.ID, after.ID)
	}
	c.log.Info("agent SVID renewed", "id", after.ID, "expires", after.Certificates[0].NotAfter)
	return nil
}
