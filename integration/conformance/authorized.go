package conformance

import (
	"fmt"
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// authorized waits until exactly these entries are the agent's: on SPIRE that takes until its cache is rebuilt.
func (c *C) authorized(a *agent, ids ...string) []*types.Entry {
	c.Helper()
	slices.Sort(ids)
	var entries []*types.Entry
	c.until("authorized entries", func() error {
		resp, err := a.entries.GetAuthorizedEntries(c.ctx, &entryv1.GetAuthorizedEntriesRequest{})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range resp.Entries {
			got = append(got, e.Id)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			return fmt.Errorf("got %v, want %v", got, ids)
		}
		entries = resp.Entries
		return nil
	})
	return entries
}

func authorizedChecks() []Check {
	return []Check{
		{"authorized/tree", authorizedTree},
		{"authorized/node alias", authorizedAlias},
		{"authorized/masked", authorizedMasked},
	}
}

// authorizedTree wants what is below the agent, at any depth, and nothing else.
func authorizedTree(c *C) {
	a, other := c.join(), c.join()
	c.authorized(a)
	child := c.entry(c.child(a.id))
	grandchild := c.entry(c.child(child.SpiffeId))
	deep := c.entry(c.child(grandchild.SpiffeId))
	theirs := c.entry(c.child(other.id))
	c.entry(c.child(c.pid("/nobody")))
	got := c.authorized(a, child.Id, grandchild.Id, deep.Id)
	for _, e := range got {
		c.equal("entry as it is delivered", e, c.getEntry(e.Id))
	}
	c.authorized(other, theirs.Id)
	_, err := c.entries.BatchDeleteEntry(c.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{grandchild.Id}})
	c.must(err)
	c.authorized(a, child.Id)
}

// authorizedAlias wants agents to have the IDs that their selectors earn them.
func authorizedAlias(c *C) {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	a := c.as(svid)
	serial := &types.Selector{Type: "x509pop", Value: "serialnumber:" + serialHex(n.cert)}
	ca := &types.Selector{Type: "x509pop", Value: "ca:fingerprint:" + sha1Hex(c.pop.Cert.Raw)}
	alias := func(selectors ...*types.Selector) *types.Entry {
		e := c.child(c.pid("/spire/server"))
		e.Selectors = selectors
		return c.entry(e)
	}
	mine, notMine := alias(serial, ca), alias(serial, &types.Selector{Type: "x509pop", Value: "other"})
	below := c.entry(c.child(mine.SpiffeId))
	c.entry(c.child(notMine.SpiffeId))
	c.authorized(a, below.Id)
	_, err = c.entries.BatchDeleteEntry(c.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{mine.Id}})
	c.must(err)
	c.authorized(a)
}

func authorizedMasked(c *C) {
	a := c.join()
	e := c.entry(c.child(a.id))
	c.authorized(a, e.Id)
	for _, row := range []struct {
		mask *types.EntryMask
		want *types.Entry
	}{
		{&types.EntryMask{}, &types.Entry{Id: e.Id}},
		{&types.EntryMask{SpiffeId: true, Selectors: true}, &types.Entry{Id: e.Id, SpiffeId: e.SpiffeId, Selectors: e.Selectors}},
		{&types.EntryMask{ParentId: true, CreatedAt: true}, &types.Entry{Id: e.Id, ParentId: e.ParentId, CreatedAt: e.CreatedAt}},
	} {
		got, err := a.entries.GetAuthorizedEntries(c.ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: row.mask})
		c.must(err)
		c.equal(row.mask.String(), got.Entries, []*types.Entry{row.want})
	}
}
