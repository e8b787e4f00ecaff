package issuercli

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/cli/entryplan"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// run does the plan: updates and creates first, so that nobody is without an identity in between, then deletes. What could
// not be because something else was in its way gets a second try once that is gone. The error is of a call that failed as a
// whole: what follows it was not tried.
func (r *applyReport) run(ctx context.Context, v *verb, client entryv1.EntryClient) error {
	bar := v.env.Progress("entries", len(r.Changes), v.out.JSON())
	defer bar.End()
	step := func(action entryplan.Action, again bool) error {
		var todo []int
		for i, c := range r.Changes {
			if c.Action == action && (c.Status == nil || again && !c.Done && inTheWay(c.Status.Code)) {
				todo = append(todo, i)
			}
		}
		return r.send(ctx, client, action, todo, bar.Add)
	}
	for _, action := range []entryplan.Action{entryplan.Update, entryplan.Create, entryplan.Delete} {
		if err := step(action, false); err != nil {
			return err
		}
	}
	for _, action := range []entryplan.Action{entryplan.Update, entryplan.Create} {
		if err := step(action, true); err != nil {
			return err
		}
	}
	return nil
}

// inTheWay says whether a code may mean that another entry was in the way.
func inTheWay(code int32) bool {
	return slices.Contains([]codes.Code{codes.AlreadyExists, codes.FailedPrecondition, codes.InvalidArgument}, codes.Code(code))
}

// send asks for the changes with these indexes, which are all of one kind.
func (r *applyReport) send(ctx context.Context, client entryv1.EntryClient, action entryplan.Action, todo []int, progress func(int)) error {
	entries := make([]*types.Entry, len(todo))
	for k, i := range todo {
		entries[k] = r.plan.Changes[i].Entry
	}
	at := 0
	for _, batch := range batches(entries) {
		results, err := call(ctx, client, action, batch)
		if err == nil && len(results) != len(batch) {
			err = fmt.Errorf("the issuer answered with %d results for %d entries", len(results), len(batch))
		}
		if err != nil {
			return fmt.Errorf("%s entries: %w", action, err)
		}
		for k, s := range results {
			r.note(todo[at+k], s)
		}
		at += len(batch)
		progress(len(batch))
	}
	return nil
}

// call makes one call and gives the status of each entry.
func call(ctx context.Context, client entryv1.EntryClient, action entryplan.Action, batch []*types.Entry) (results []*types.Status, err error) {
	switch action {
	case entryplan.Create:
		resp, err := client.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: batch, OutputMask: &types.EntryMask{}})
		return statuses(resp.GetResults()), err
	case entryplan.Update:
		resp, err := client.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: batch, OutputMask: &types.EntryMask{}})
		return statuses(resp.GetResults()), err
	}
	ids := make([]string, len(batch))
	for i, e := range batch {
		ids[i] = e.Id
	}
	resp, err := client.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: ids})
	all := statuses(resp.GetResults())
	for i, s := range all {
		if s.GetCode() == int32(codes.NotFound) { // somebody was faster
			all[i] = &types.Status{}
		}
	}
	return all, err
}

func statuses[R interface{ GetStatus() *types.Status }](results []R) []*types.Status {
	var all []*types.Status
	for _, r := range results {
		all = append(all, r.GetStatus())
	}
	return all
}
