package conformance

import (
	"io"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func syncChecks() []Check {
	return []Check{
		{"sync/refused", syncRefused},
		{"sync/few", syncFew},
		{"sync/500 and 501", syncMany},
		{"sync/more than fits a message", largeEntries},
		{"authority/after a restart", authorityRestart},
	}
}

// stream begins a SyncAuthorizedEntries as an agent.
func (a *agent) stream(c *C, first *entryv1.SyncAuthorizedEntriesRequest) entryv1.Entry_SyncAuthorizedEntriesClient {
	c.Helper()
	stream, err := a.entries.SyncAuthorizedEntries(c.ctx)
	c.must(err)
	c.must(stream.Send(first))
	return stream
}

func syncRefused(c *C) {
	a := c.join()
	_, err := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"x"}}).Recv()
	c.refused(err, codes.InvalidArgument, "specifying IDs on initial request is not supported")
	_, err = a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}}).Recv()
	c.refused(err, codes.InvalidArgument, "revision number cannot be masked")
}

// syncFew wants all entries in one message, and the stream's end.
func syncFew(c *C) {
	a := c.join()
	none := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{})
	got, err := none.Recv()
	c.must(err)
	c.equal("no entries", got, &entryv1.SyncAuthorizedEntriesResponse{})
	e := c.entry(c.child(a.id))
	c.authorized(a, e.Id)
	for mask, want := range map[*types.EntryMask]*types.Entry{
		nil:                                    e,
		{RevisionNumber: true}:                 {Id: e.Id, RevisionNumber: e.RevisionNumber},
		{RevisionNumber: true, SpiffeId: true}: {Id: e.Id, RevisionNumber: e.RevisionNumber, SpiffeId: e.SpiffeId},
	} {
		stream := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: mask})
		got, err := stream.Recv()
		c.must(err)
		c.equal("entries", got, &entryv1.SyncAuthorizedEntriesResponse{Entries: []*types.Entry{want}})
		if _, err := stream.Recv(); err != io.EOF {
			c.Errorf("after all entries: %v, want the end", err)
		}
	}
}

// syncMany goes over the size of a page.
func syncMany(c *C) {
	a := c.join()
	var all []*types.Entry
	var ids []string
	add := func(n int) {
		var batch []*types.Entry
		for range n {
			batch = append(batch, c.child(a.id))
		}
		for _, r := range c.create(nil, batch...) {
			c.mustOK(r.Status)
			all, ids = append(all, r.Entry), append(ids, r.Entry.Id)
		}
		c.authorized(a, slices.Clone(ids)...)
	}
	add(500)
	stream := a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{})
	got, err := stream.Recv()
	c.must(err)
	c.equal("500: entries, revisions, more", []any{len(got.Entries), len(got.EntryRevisions), got.More}, []any{500, 0, false})
	add(1)
	mask := &types.EntryMask{RevisionNumber: true, SpiffeId: true}
	stream = a.stream(c, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: mask})
	var revisions []*entryv1.EntryRevision
	for more := true; more; {
		got, err := stream.Recv()
		c.must(err)
		c.equal("501: entries", len(got.Entries), 0)
		revisions = append(revisions, got.EntryRevisions...)
		if more = got.More; more {
			c.equal("revisions on a page", len(got.EntryRevisions), 500)
		}
	}
	c.equal("revisions", len(revisions), 501)
	byID := map[string]*types.Entry{}
	for _, e := range all {
		byID[e.Id] = e
	}
	for _, r := range revisions {
		e := byID[r.Id]
		c.equal("revision", r, &entryv1.EntryRevision{Id: e.GetId(), RevisionNumber: e.GetRevisionNumber(), CreatedAt: e.GetCreatedAt()})
	}
	c.syncAsked(stream, ids, byID)
}

// syncAsked asks for all entries, for two and for none, on a stream that has told their revisions.
func (c *C) syncAsked(stream entryv1.Entry_SyncAuthorizedEntriesClient, ids []string, byID map[string]*types.Entry) {
	c.Helper()
	for _, row := range []struct {
		ids  []string
		want []int // the sizes of the pages
	}{
		{ids, []int{500, 1}},
		{append([]string{"unheard-of"}, ids[:2]...), []int{2}},
		{[]string{"unheard-of"}, []int{0}},
		{[]string{}, []int{0}},
	} {
		// What a later request says of the mask does not count.
		c.must(stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: row.ids, OutputMask: &types.EntryMask{}}))
		var pages []int
		for more := true; more; {
			got, err := stream.Recv()
			c.must(err)
			more = got.More
			pages = append(pages, len(got.Entries))
			for _, e := range got.Entries {
				c.equal("entry", e, &types.Entry{Id: e.Id, SpiffeId: byID[e.Id].GetSpiffeId(), RevisionNumber: byID[e.Id].GetRevisionNumber()})
			}
			c.equal("revisions in the second phase", len(got.EntryRevisions), 0)
		}
		c.equal("pages", pages, row.want)
	}
	c.must(stream.CloseSend())
	if _, err := stream.Recv(); err != io.EOF {
		c.Errorf("after CloseSend: %v, want the end", err)
	}
}
