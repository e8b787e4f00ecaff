package conformance

import (
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// largeEntries are more entries of one agent than fit a message, which is 4 MiB for every client of gRPC's.
func largeEntries(c *C) {
	a := c.join()
	parent := a.id
	ids := map[string]bool{}
	for range 5 {
		var batch []*types.Entry
		for range 90 {
			e := c.child(parent)
			e.Selectors = []*types.Selector{{Type: "test", Value: c.unique(strings.Repeat("s", 10_000))}}
			batch = append(batch, e)
		}
		for _, r := range c.create(&types.EntryMask{}, batch...) {
			c.mustOK(r.Status)
			ids[r.Entry.Id] = true
		}
	}
	c.largeList(parent, len(ids))
	c.largeSync(a, ids)
}

// largeSync follows the protocol as agents do: what the first answers do not hold is asked for.
func (c *C) largeSync(a *agent, ids map[string]bool) {
	c.Helper()
	if !c.Differs("sync: more than fits a message") {
		c.until("refusal", func() error { // once the cache has them all
			_, err := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{}).Recv()
			if err == nil {
				return errNotYet
			}
			c.refused(err, codes.ResourceExhausted, "grpc: received message larger than max…")
			return nil
		})
		return
	}
	stream := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{})
	first, err := stream.Recv()
	c.must(err)
	c.equal("revisions", len(first.EntryRevisions), len(ids))
	var all []string
	for id := range ids {
		all = append(all, id)
	}
	c.must(stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: all}))
	for more := true; more; {
		got, err := stream.Recv()
		c.must(err)
		for _, e := range got.Entries {
			delete(ids, e.Id)
		}
		more = got.More
	}
	c.equal("entries that did not come", len(ids), 0)
}

// largeList asks for everything at once, and then by pages.
func (c *C) largeList(parent *types.SPIFFEID, total int) {
	c.Helper()
	all, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{Filter: &entryFilter{ByParentId: parent}})
	if c.Differs("list: more than fits a message") {
		c.must(err)
		if len(all.Entries) == 0 || len(all.Entries) >= total || all.NextPageToken == "" {
			c.Errorf("%d entries of %d, token %q", len(all.Entries), total, all.NextPageToken)
		}
	} else {
		c.refused(err, codes.ResourceExhausted, "grpc: received message larger than max…")
	}
	token, listed := "", 0
	for range 20 {
		page, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{
			Filter: &entryFilter{ByParentId: parent}, PageSize: 200, PageToken: token,
		})
		c.must(err)
		listed += len(page.Entries)
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	c.equal("entries on all pages", listed, total)
}
