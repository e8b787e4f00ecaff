package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Workloads that are other users have IDs from here on, one for each entry.
const firstUID = 100_000

func id(path string) *types.SPIFFEID { return &types.SPIFFEID{TrustDomain: trustDomain, Path: path} }

// entry is one for a user's processes on the agent's node.
func entry(path string, uid int) *types.Entry {
	return &types.Entry{SpiffeId: id(path), ParentId: id("/node"), Selectors: []*types.Selector{{Type: "unix", Value: fmt.Sprintf("uid:%d", uid)}}}
}

// create creates entries in one call, and returns their IDs.
func (r *programs) create(ctx context.Context, entries ...*types.Entry) ([]string, error) {
	resp, err := entryv1.NewEntryClient(r.admin).BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: entries, OutputMask: &types.EntryMask{}})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, result := range resp.GetResults() {
		if result.GetStatus().GetCode() != 0 {
			return nil, errors.New(result.GetStatus().GetMessage())
		}
		ids = append(ids, result.GetEntry().GetId())
	}
	return ids, nil
}

func (r *programs) delete(ctx context.Context, entryID string) error {
	resp, err := entryv1.NewEntryClient(r.admin).BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{entryID}})
	if err != nil {
		return err
	}
	if result := resp.GetResults()[0].GetStatus(); result.GetCode() != 0 {
		return errors.New(result.GetMessage())
	}
	return nil
}

// fill creates entries from one number to another, each for a user of its own, and after them one for this process: where
// that has reached the stream, the agent has all of them.
func (m *measurement) fill(ctx context.Context, from, to int) error {
	const batch = 500
	for at := from; at < to; at += batch {
		var entries []*types.Entry
		for i := at; i < min(at+batch, to); i++ {
			entries = append(entries, entry(fmt.Sprintf("/ns/team-%d/sa/service-%d", i%100, i), firstUID+i))
		}
		if _, err := m.programs.create(ctx, entries...); err != nil {
			return err
		}
	}
	mark := fmt.Sprintf("/filled/%d", to)
	seen := m.watcher.expect(func(t told) bool { return t.has(mark) })
	if _, err := m.programs.create(ctx, entry(mark, os.Getuid())); err != nil {
		return err
	}
	_, err := m.watcher.wait(ctx, seen)
	return err
}
