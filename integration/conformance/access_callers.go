package conformance

import (
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// byID is a caller with an SVID for the path. One that is no agent is told so where an agent's method refuses it.
func (c *C) byID(path, class string) caller {
	c.Helper()
	return caller{c.name, class, c.dial(c.mint(path)), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED}
}

// byEntry is a caller whose ID has the entry.
func (c *C) byEntry(class string, entry *types.Entry) caller {
	c.Helper()
	path := "/" + c.unique("caller")
	entry.SpiffeId, entry.ParentId = c.pid(path), c.pid("/nobody")
	c.entry(entry)
	return c.byID(path, class)
}

// foreignCaller is an operator of another trust domain, whose bundle the server has: its lookups may be a second old.
func foreignCaller(c *C) caller {
	c.federate("foreign.test", c.foreign.Cert)
	conn := c.dial(c.foreign.SVID(c.T, foreignAdmin))
	c.until("foreign admin", func() error {
		_, err := bundlev1.NewBundleClient(conn).CountBundles(c.ctx, &bundlev1.CountBundlesRequest{})
		return err
	})
	return caller{"foreign admin", "admin", conn, types.PermissionDeniedDetails_AGENT_NOT_ATTESTED}
}

func bannedCaller(c *C) caller {
	a := c.join()
	c.must(a.post(c))
	_, err := c.agents.BanAgent(c.ctx, &agentv1.BanAgentRequest{Id: a.id})
	c.must(err)
	return caller{"banned agent", "none", a.conn, types.PermissionDeniedDetails_AGENT_BANNED}
}

func evictedCaller(c *C) caller {
	a := c.join()
	c.must(a.post(c))
	_, err := c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: a.id})
	c.must(err)
	return caller{"evicted agent", "none", a.conn, types.PermissionDeniedDetails_AGENT_NOT_ATTESTED}
}

// supersededCaller attested again: its former SVID is void at once.
func supersededCaller(c *C) caller {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	a := c.as(svid)
	c.must(a.post(c))
	_, err = n.prove(c)
	c.must(err)
	return caller{"superseded agent", "none", a.conn, types.PermissionDeniedDetails_AGENT_NOT_ACTIVE}
}

// renewedCaller uses its next SVID for the first time.
func renewedCaller(c *C) caller {
	svid, err := c.join().renew(c)
	c.must(err)
	return caller{"renewed agent", "agent", c.dial(svid), 0}
}

// formerCaller has used its next SVID, and comes back with the former.
func formerCaller(c *C) caller {
	a := c.join()
	svid, err := a.renew(c)
	c.must(err)
	c.must(a.post(c)) // still good: the answer might have been lost
	c.must(c.as(svid).post(c))
	return caller{"former SVID", "none", a.conn, types.PermissionDeniedDetails_AGENT_NOT_ACTIVE}
}
