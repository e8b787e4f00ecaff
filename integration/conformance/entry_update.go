package conformance

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func (c *C) update(in, out *types.EntryMask, entries ...*types.Entry) []*entryv1.BatchUpdateEntryResponse_Result {
	c.Helper()
	resp, err := c.entries.BatchUpdateEntry(c.ctx, &entryv1.BatchUpdateEntryRequest{Entries: entries, InputMask: in, OutputMask: out})
	c.must(err)
	if len(resp.Results) != len(entries) {
		c.Fatalf("%d results for %d entries", len(resp.Results), len(entries))
	}
	return resp.Results
}

// updateEntry replaces all fields; each call raises the revision number, also one that changes nothing.
func updateEntry(c *C) {
	e := c.entry(c.child(c.pid("/node")))
	c.equal("first revision number", e.RevisionNumber, int64(0))
	want := c.fullEntry()
	want.Id, want.RevisionNumber, want.CreatedAt = e.Id, 1, e.CreatedAt
	sent := proto.Clone(want).(*types.Entry)
	sent.RevisionNumber, sent.CreatedAt = 44, 44
	result := c.update(nil, nil, sent)[0]
	c.mustOK(result.Status)
	c.equal("updated", result.Entry, want)
	c.equal("stored", c.getEntry(e.Id), want)
	want.RevisionNumber = 2
	result = c.update(nil, nil, sent)[0]
	c.mustOK(result.Status)
	c.equal("updated with no change", result.Entry, want)
	plain := c.child(c.pid("/node"))
	plain.Id, plain.RevisionNumber, plain.CreatedAt = e.Id, 3, e.CreatedAt
	result = c.update(nil, nil, plain)[0]
	c.mustOK(result.Status)
	c.equal("updated to nothing but the least", result.Entry, plain)
}

// updateMasked changes one field at a time.
func updateMasked(c *C) {
	all := c.fullEntry()
	for what, row := range map[string]struct {
		mask *types.EntryMask
		set  func(e *types.Entry)
	}{
		"spiffe_id":      {&types.EntryMask{SpiffeId: true}, func(e *types.Entry) { e.SpiffeId = all.SpiffeId }},
		"parent_id":      {&types.EntryMask{ParentId: true}, func(e *types.Entry) { e.ParentId = all.ParentId }},
		"selectors":      {&types.EntryMask{Selectors: true}, func(e *types.Entry) { e.Selectors = all.Selectors }},
		"x509_svid_ttl":  {&types.EntryMask{X509SvidTtl: true}, func(e *types.Entry) { e.X509SvidTtl = all.X509SvidTtl }},
		"jwt_svid_ttl":   {&types.EntryMask{JwtSvidTtl: true}, func(e *types.Entry) { e.JwtSvidTtl = all.JwtSvidTtl }},
		"federates_with": {&types.EntryMask{FederatesWith: true}, func(e *types.Entry) { e.FederatesWith = all.FederatesWith }},
		"admin":          {&types.EntryMask{Admin: true}, func(e *types.Entry) { e.Admin = true }},
		"downstream":     {&types.EntryMask{Downstream: true}, func(e *types.Entry) { e.Downstream = true }},
		"expires_at":     {&types.EntryMask{ExpiresAt: true}, func(e *types.Entry) { e.ExpiresAt = all.ExpiresAt }},
		"dns_names":      {&types.EntryMask{DnsNames: true}, func(e *types.Entry) { e.DnsNames = all.DnsNames }},
		"store_svid":     {&types.EntryMask{StoreSvid: true}, func(e *types.Entry) { e.StoreSvid = true }},
		"hint":           {&types.EntryMask{Hint: true}, func(e *types.Entry) { e.Hint = all.Hint }},
		"additional_attributes": {&types.EntryMask{AdditionalAttributes: true}, func(e *types.Entry) {
			e.AdditionalAttributes = all.AdditionalAttributes
		}},
		"revision_number": {&types.EntryMask{RevisionNumber: true}, func(*types.Entry) {}},
		"created_at":      {&types.EntryMask{CreatedAt: true}, func(*types.Entry) {}},
		"nothing":         {&types.EntryMask{}, func(*types.Entry) {}},
	} {
		want := c.entry(c.child(c.pid("/node")))
		sent := proto.Clone(all).(*types.Entry)
		sent.Id = want.Id
		result := c.update(row.mask, nil, sent)[0]
		c.mustOK(result.Status)
		row.set(want)
		want.RevisionNumber = 1
		c.equal(what, result.Entry, want)
		result = c.update(row.mask, &types.EntryMask{RevisionNumber: true}, sent)[0]
		c.ok(result.Status)
		c.equal("masked answer", result.Entry, &types.Entry{Id: want.Id, RevisionNumber: 2})
	}
}

func updateRefused(c *C) {
	e := c.entry(c.child(c.pid("/node")))
	unknown := proto.Clone(e).(*types.Entry)
	unknown.Id = "unheard-of"
	nameless := proto.Clone(e).(*types.Entry)
	nameless.Id = ""
	results := c.update(nil, nil, unknown, nameless, e)
	for i := range 2 {
		c.equal("entry of a refused item", results[i].Entry, (*types.Entry)(nil))
	}
	c.status(results[0].Status, codes.NotFound, "failed to update entry")
	c.status(results[1].Status, codes.NotFound, "failed to update entry")
	c.ok(results[2].Status)
	for text, change := range map[string]func(e *types.Entry){
		"failed to convert entry: selector list is empty":                                                  func(e *types.Entry) { e.Selectors = nil },
		"failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID":                       func(e *types.Entry) { e.SpiffeId = nil },
		"failed to update entry: datastore-validation: invalid registration entry: X509SvidTtl is not set": func(e *types.Entry) { e.X509SvidTtl = -1 },
		"failed to update entry: datastore-validation: invalid registration entry: JwtSvidTtl is not set":  func(e *types.Entry) { e.JwtSvidTtl = -1 },
		"failed to convert entry: invalid DNS name: …":                                                     func(e *types.Entry) { e.DnsNames = []string{"-"} },
	} {
		bad := proto.Clone(e).(*types.Entry)
		change(bad)
		c.status(c.update(nil, nil, bad)[0].Status, codes.InvalidArgument, c.words(text, "failed to convert entry: …"))
	}
	c.equal("revision number", c.getEntry(e.Id).RevisionNumber, int64(1))
}

// updateSimilar makes an entry like another.
func updateSimilar(c *C) {
	first, second := c.entry(c.child(c.pid("/node"))), c.entry(c.child(c.pid("/node")))
	same := proto.Clone(first).(*types.Entry)
	same.Id = second.Id
	result := c.update(nil, nil, same)[0]
	if c.Differs("update: similar entry") {
		c.status(result.Status, codes.AlreadyExists, "…")
		c.equal("entry", c.getEntry(second.Id), second)
	} else {
		c.ok(result.Status)
	}
}

func deleteEntry(c *C) {
	e, kept := c.entry(c.child(c.pid("/node"))), c.entry(c.child(c.pid("/node")))
	resp, err := c.entries.BatchDeleteEntry(c.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{e.Id, "", "unheard-of", e.Id}})
	c.must(err)
	c.ok(resp.Results[0].Status)
	c.equal("ID of the result", resp.Results[0].Id, e.Id)
	c.status(resp.Results[1].Status, codes.InvalidArgument, "missing entry ID")
	c.status(resp.Results[2].Status, codes.NotFound, "entry not found")
	c.equal("ID of the result", resp.Results[2].Id, "unheard-of")
	c.status(resp.Results[3].Status, codes.NotFound, "entry not found")
	c.equal("the entry", c.getEntry(e.Id), (*types.Entry)(nil))
	c.equal("another entry", c.getEntry(kept.Id), kept)
	resp, err = c.entries.BatchDeleteEntry(c.ctx, &entryv1.BatchDeleteEntryRequest{})
	c.must(err)
	c.equal("results of nothing", len(resp.Results), 0)
}

func getEntryCheck(c *C) {
	_, err := c.entries.GetEntry(c.ctx, &entryv1.GetEntryRequest{})
	c.refused(err, codes.InvalidArgument, "missing ID")
	_, err = c.entries.GetEntry(c.ctx, &entryv1.GetEntryRequest{Id: "unheard-of"})
	c.refused(err, codes.NotFound, "entry not found")
}

// entryMasks lets each field through alone.
func entryMasks(c *C) {
	all := c.entry(c.fullEntry())
	all = c.update(&types.EntryMask{}, nil, all)[0].Entry // for a revision number
	for _, field := range []string{
		"spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "federates_with", "admin", "downstream", "expires_at", "dns_names",
		"revision_number", "store_svid", "jwt_svid_ttl", "hint", "created_at", "additional_attributes",
	} {
		mask, want := &types.EntryMask{}, &types.Entry{Id: all.Id}
		setField(mask, field)
		copyField(want, all, field)
		got, err := c.entries.GetEntry(c.ctx, &entryv1.GetEntryRequest{Id: all.Id, OutputMask: mask})
		c.must(err)
		c.equal(field, got, want)
		list, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{
			OutputMask: mask, Filter: &entryv1.ListEntriesRequest_Filter{BySpiffeId: all.SpiffeId},
		})
		c.must(err)
		c.equal(field+" in a list", list.Entries, []*types.Entry{want})
	}
}
