package conformance

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func agentChecks() []Check {
	return []Check{
		{"agent/get", getAgent},
		{"agent/get masked", getAgentMasked},
		{"agent/IDs that are no agent's", notAgents},
		{"agent/ban", banAgent},
		{"agent/evict", evictAgent},
		{"agent/post status", postStatus},
		{"agent/renew", renewAgent},
		{"agent/renew refused", renewRefused},
		{"agent/renew twice", renewTwice},
		{"agent/renew a reattestable agent", renewReattestable},
	}
}

// getAgent wants everything that is known of an agent.
func getAgent(c *C) {
	a := c.join()
	c.must(a.post(c))
	got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
	c.must(err)
	cert := a.svid.Certificates[0]
	c.equal("agent", got, &types.Agent{
		Id: a.id, AttestationType: "join_token", X509SvidSerialNumber: cert.SerialNumber.String(),
		X509SvidExpiresAt: cert.NotAfter.Unix(), AgentVersion: "1.0",
	})
}

func getAgentMasked(c *C) {
	a := c.join()
	for _, row := range []struct {
		mask *types.AgentMask
		want func(all *types.Agent) *types.Agent
	}{
		{&types.AgentMask{}, func(all *types.Agent) *types.Agent { return &types.Agent{Id: all.Id} }},
		{&types.AgentMask{AttestationType: true}, func(all *types.Agent) *types.Agent {
			return &types.Agent{Id: all.Id, AttestationType: all.AttestationType}
		}},
		{&types.AgentMask{X509SvidSerialNumber: true, X509SvidExpiresAt: true}, func(all *types.Agent) *types.Agent {
			return &types.Agent{Id: all.Id, X509SvidSerialNumber: all.X509SvidSerialNumber, X509SvidExpiresAt: all.X509SvidExpiresAt}
		}},
	} {
		all, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
		c.must(err)
		got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id, OutputMask: row.mask})
		c.must(err)
		c.equal(row.mask.String(), got, row.want(all))
	}
}

// notAgents makes each call that takes an agent's ID with what is none.
func notAgents(c *C) {
	calls := []func(id *types.SPIFFEID) error{
		func(id *types.SPIFFEID) error {
			_, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: id})
			return err
		},
		func(id *types.SPIFFEID) error {
			_, err := c.agents.BanAgent(c.ctx, &agentv1.BanAgentRequest{Id: id})
			return err
		},
		func(id *types.SPIFFEID) error {
			_, err := c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: id})
			return err
		},
	}
	td := c.td.Name()
	for _, call := range calls {
		c.refused(call(nil), codes.InvalidArgument, "invalid agent ID: request must specify SPIFFE ID")
		c.refused(call(&types.SPIFFEID{}), codes.InvalidArgument, "invalid agent ID: trust domain is missing")
		for text, id := range map[string]*types.SPIFFEID{
			`"spiffe://` + td + `" is not an agent in trust domain "` + td + `"; path is empty`: {TrustDomain: td},
			`"spiffe://other.test/spire/agent/x" is not a member of trust domain "` + td + `"`: {
				TrustDomain: "other.test", Path: "/spire/agent/x",
			},
			`"spiffe://` + td + `/web" is not an agent in trust domain "` + td + `"; path is not in the agent namespace`: c.pid("/web"),
		} {
			c.refused(call(id), codes.InvalidArgument, c.words("invalid agent ID: "+text, "invalid agent ID: …"))
		}
		c.refused(call(c.pid("no-slash")), codes.InvalidArgument, "invalid agent ID: path must have a leading slash")
		c.refused(call(c.pid("/spire/agent/x/")), codes.InvalidArgument, "invalid agent ID: path cannot have a trailing slash")
		c.refused(call(c.pid("/spire/agent/join_token/unheard-of")), codes.NotFound, "agent not found")
	}
}

// banAgent wants a banned agent refused, kept, and not let in again.
func banAgent(c *C) {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	a := c.as(svid)
	_, err = c.agents.BanAgent(c.ctx, &agentv1.BanAgentRequest{Id: a.id})
	c.must(err)
	got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
	c.must(err)
	if !got.Banned || got.X509SvidSerialNumber != "" {
		c.Errorf("got %v, want it banned and without a serial number", got)
	}
	_, err = n.prove(c)
	c.refused(err, codes.PermissionDenied, "failed to attest: agent is banned")
	_, err = c.agents.BanAgent(c.ctx, &agentv1.BanAgentRequest{Id: a.id}) // again
	c.must(err)
	_, err = c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: a.id})
	c.must(err)
	again, err := n.prove(c) // an eviction ends the ban
	c.must(err)
	c.must(c.as(again).post(c))
}

// evictAgent wants an evicted agent forgotten, and let in again as a new one.
func evictAgent(c *C) {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	a := c.as(svid)
	_, err = c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: a.id})
	c.must(err)
	_, err = c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
	c.refused(err, codes.NotFound, "agent not found")
	_, err = c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: a.id})
	c.refused(err, codes.NotFound, "agent not found")
	again, err := n.prove(c)
	c.must(err)
	if again.ID != a.svid.ID {
		c.Errorf("came back as %s, was %s", again.ID, a.svid.ID)
	}
	c.must(c.as(again).post(c))
	if got := reason(a.post(c)); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		c.Errorf("with the SVID of before: %s", got)
	}
}

func postStatus(c *C) {
	a := c.join()
	post := func(version string) error {
		_, err := a.agents.PostStatus(c.ctx, &agentv1.PostStatusRequest{AgentVersion: version, CurrentBundleSerial: 12})
		return err
	}
	version := func() string {
		got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
		c.must(err)
		return got.AgentVersion
	}
	c.must(post("1.2.3"))
	c.equal("version", version(), "1.2.3")
	c.must(post(""))
	c.equal("version after an empty one", version(), "1.2.3")
	c.must(post(strings.Repeat("v", 255)))
	c.refused(post(strings.Repeat("v", 256)), codes.InvalidArgument, "agent version is too long (max 255 characters)")
	c.equal("length of the version", len(version()), 255)
}

// renewAgent follows an agent through a renewal: the new serial number is the agent's from its first use on.
func renewAgent(c *C) {
	a := c.join()
	serial := func() string {
		got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
		c.must(err)
		return got.X509SvidSerialNumber
	}
	next, err := a.renew(c)
	c.must(err)
	if next.ID != a.svid.ID || next.Certificates[0].NotAfter.Before(time.Now()) {
		c.Errorf("renewed as %s until %s", next.ID, next.Certificates[0].NotAfter)
	}
	c.equal("serial number before first use", serial(), a.svid.Certificates[0].SerialNumber.String())
	c.must(c.as(next).post(c))
	c.equal("serial number after first use", serial(), next.Certificates[0].SerialNumber.String())
}

// renewTwice wants a renewal whose answer was lost to be void once there is another.
func renewTwice(c *C) {
	a := c.join()
	lost, err := a.renew(c)
	c.must(err)
	next, err := a.renew(c)
	c.must(err)
	if got := reason(c.as(lost).post(c)); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		c.Errorf("with the first renewal: %s", got)
	}
	c.must(a.post(c))
	c.must(c.as(next).post(c))
}

func renewRefused(c *C) {
	a := c.join()
	renew := func(params *agentv1.AgentX509SVIDParams) error {
		_, err := a.agents.RenewAgent(c.ctx, &agentv1.RenewAgentRequest{Params: params})
		return err
	}
	c.refused(renew(nil), codes.InvalidArgument, "params cannot be nil")
	c.refused(renew(&agentv1.AgentX509SVIDParams{}), codes.InvalidArgument, "missing CSR")
	c.refused(renew(&agentv1.AgentX509SVIDParams{Csr: []byte("not a CSR")}), codes.InvalidArgument, "failed to parse CSR: …")
	forged := renew(&agentv1.AgentX509SVIDParams{Csr: forgedCSR(c)})
	if c.Differs("renew: CSR signature") {
		c.refused(forged, codes.InvalidArgument, "…")
	} else {
		c.must(forged)
	}
}

func renewReattestable(c *C) {
	svid, err := c.newNode().prove(c)
	c.must(err)
	a := c.as(svid)
	_, err = a.renew(c)
	c.refused(err, codes.PermissionDenied, "agent must reattest instead of renew")
	if got := reason(err); got != types.PermissionDeniedDetails_AGENT_MUST_REATTEST {
		c.Errorf("reason %s", got)
	}
	c.must(a.post(c))
}
