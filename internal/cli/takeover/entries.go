package takeover

import (
	"context"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryfile"
	"github.com/lanyard-mtls/lanyard/internal/cli/entryplan"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entries takes the registration entries with their IDs.
func (m *move) entries(ctx context.Context) error {
	theirs, err := entries(ctx, m.from.entry)
	if err != nil {
		return err
	}
	ours, err := entries(ctx, m.to.entry)
	if err != nil {
		return err
	}
	byID, byKey := map[string]*types.Entry{}, map[string]*types.Entry{}
	for _, e := range ours {
		byID[e.Id], byKey[entryfile.Key(e)] = e, e
	}
	p := m.report.part("entries")
	var missing, changed []*types.Entry
	for _, e := range theirs {
		here, same := byID[e.Id], byKey[entryfile.Key(e)]
		switch {
		case here == nil && same != nil:
			p.skip(entryName(e), "entry %s is the same but for its ID", same.Id)
		case here == nil && e.ExpiresAt != 0 && e.ExpiresAt < m.Now:
			p.skip(entryName(e), "expired")
		case here == nil:
			missing = append(missing, e)
		case len(entryplan.Diff(here, e)) == 0:
			p.Present++
		case m.Update:
			changed = append(changed, e)
		default:
			p.skip(entryName(e), "is here already and differs in %s; -update makes it as it is there", differing(here, e))
		}
	}
	return m.sendEntries(ctx, p, missing, changed)
}

func (m *move) sendEntries(ctx context.Context, p *Part, missing, changed []*types.Entry) error {
	if m.DryRun {
		p.Taken, p.Updated = len(missing), len(changed)
		return nil
	}
	bar := m.Progress("entries", len(missing)+len(changed))
	defer bar.End()
	for _, batch := range chunks(missing) {
		resp, err := m.to.entry.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: batch, OutputMask: &types.EntryMask{}})
		if err != nil {
			return err
		}
		judge(p, batch, resp.Results, &p.Taken, bar)
	}
	for _, batch := range chunks(changed) {
		resp, err := m.to.entry.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: batch, OutputMask: &types.EntryMask{}})
		if err != nil {
			return err
		}
		judge(p, batch, resp.Results, &p.Updated, bar)
	}
	return nil
}

// judge counts the answers to a batch.
func judge[R interface{ GetStatus() *types.Status }](p *Part, batch []*types.Entry, results []R, count *int, bar *cli.Progress) {
	for i, r := range results {
		if i < len(batch) {
			p.result(entryName(batch[i]), r.GetStatus(), count)
		}
	}
	bar.Add(len(batch))
}

func entries(ctx context.Context, c entryv1.EntryClient) ([]*types.Entry, error) {
	return all(func(token string) ([]*types.Entry, string, error) {
		page, err := c.ListEntries(ctx, &entryv1.ListEntriesRequest{PageSize: pageSize, PageToken: token})
		return page.GetEntries(), page.GetNextPageToken(), err
	})
}

func entryName(e *types.Entry) string { return e.Id + " (" + entryfile.IDString(e.SpiffeId) + ")" }

func differing(a, b *types.Entry) string {
	var names []string
	for _, f := range entryplan.Diff(a, b) {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}
