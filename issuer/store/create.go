package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

const (
	// batchEntries and batchBytes bound one transaction: large enough to share
	// the price of a sync, small enough not to hold up others.
	batchEntries = 1000
	batchBytes   = 1 << 20
)

// EntryResult is the outcome for one entry of a batch.
type EntryResult struct {
	// Entry is as it is in the store now (or was, if it was deleted).
	Entry registration.Entry
	// Err is nil if and only if the change was made. It wraps ErrExists with
	// the similar existing Entry, or with none if only the ID is taken;
	// ErrNotFound; ErrTooLarge; or what ended the whole batch early.
	Err error
}

// draft is an entry on its way into the store.
type draft struct {
	entry   registration.Entry
	data    string
	derived map[string]string
	unique  string
	result  *EntryResult
}

// CreateEntries creates each entry unless one with its ID or its Key exists;
// it sets ID and CreatedAt where they are empty, and Revision to 0. Each result
// stands for itself. The entries go into few transactions, each of which
// happens as a whole; when a transaction cannot be made, its entries and those
// after it have the error in their results, which is also returned.
func (s *Store) CreateEntries(ctx context.Context, entries []registration.Entry) ([]EntryResult, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	results := make([]EntryResult, len(entries))
	var drafts []*draft
	for i, e := range entries {
		if d := s.draft(e, &results[i]); d != nil {
			drafts = append(drafts, d)
		}
	}
	var rev Revision
	for len(drafts) > 0 {
		batch, again, rest := nextBatch(drafts)
		done, err := s.createBatch(ctx, batch)
		rev = max(rev, done)
		if err != nil {
			err = s.fault("create entries", err)
			for _, d := range drafts {
				if d.result.Entry.ID == "" && d.result.Err == nil {
					d.result.Err = err
				}
			}
			return results, rev, err
		}
		drafts = append(resolveTwins(batch, again), rest...)
	}
	return results, rev, nil
}

// draft completes an entry; nil if it cannot be stored.
func (s *Store) draft(e registration.Entry, result *EntryResult) *draft {
	if e.ID == "" {
		e.ID = uuid.NewString()
	}
	if e.CreatedAt.IsZero() {
		e.CreatedAt = s.cfg.Now()
	}
	e.CreatedAt = e.CreatedAt.UTC().Truncate(time.Second)
	e.Revision = 0
	e = normal(e)
	if result.Err = validID(e.ID); result.Err != nil {
		return nil
	}
	d := &draft{entry: e, derived: derivedKeys(e), unique: uniqueDir + e.Key(), result: result}
	if d.data, result.Err = encodeEntry(e); result.Err != nil {
		return nil
	}
	return d
}

// normal returns e with its sets as they are kept: selectors sorted, and no
// member of either set twice.
func normal(e registration.Entry) registration.Entry {
	e.Selectors = registration.SortSelectors(e.Selectors)
	var federates []spiffeid.TrustDomain
	for _, td := range e.FederatesWith {
		if !slices.Contains(federates, td) {
			federates = append(federates, td)
		}
	}
	e.FederatesWith = federates
	return e
}

// nextBatch takes drafts for one transaction off the front. A transaction may
// write no key twice, so those that clash with one in it must come again.
func nextBatch(drafts []*draft) (batch, again, rest []*draft) {
	taken := make(map[string]bool)
	size := 0
	for i, d := range drafts {
		if len(batch) == batchEntries || len(batch) > 0 && size+len(d.data) > batchBytes {
			return batch, again, drafts[i:]
		}
		if taken[d.unique] || taken[entryKey(d.entry.ID)] {
			again = append(again, d)
			continue
		}
		taken[d.unique], taken[entryKey(d.entry.ID)] = true, true
		size += len(d.data)
		batch = append(batch, d)
	}
	return batch, again, nil
}

// resolveTwins answers drafts that are like one of the batch just done, and
// returns those whose like did not get in.
func resolveTwins(batch, again []*draft) []*draft {
	if len(again) == 0 {
		return nil
	}
	similar := make(map[string]registration.Entry, len(batch))
	ids := make(map[string]bool, len(batch))
	for _, d := range batch {
		ids[d.entry.ID] = ids[d.entry.ID] || d.result.Err == nil || d.result.Entry.ID == ""
		if d.result.Entry.ID != "" {
			similar[d.unique] = d.result.Entry
		}
	}
	var left []*draft
	for _, d := range again {
		if e, ok := similar[d.unique]; ok {
			d.exists(e)
		} else if ids[d.entry.ID] {
			d.exists(registration.Entry{})
		} else {
			left = append(left, d)
		}
	}
	return left
}

func (d *draft) exists(similar registration.Entry) {
	d.result.Entry = similar
	d.result.Err = fmt.Errorf("entry ID %q: %w", d.entry.ID, ErrExists)
	if similar.ID != "" {
		d.result.Err = fmt.Errorf("entry %s with this SPIFFE ID, parent and selectors: %w", similar.ID, ErrExists)
	}
}

// createBatch creates what can be created, in one transaction, and sets every
// result.
func (s *Store) createBatch(ctx context.Context, batch []*draft) (Revision, error) {
	var rev Revision
	for range maxAttempts {
		var t txn
		for _, d := range batch {
			t.unchanged(d.unique, 0)
			t.unchanged(entryKey(d.entry.ID), 0)
			t.put(entryKey(d.entry.ID), d.data)
			for _, key := range slices.Sorted(maps.Keys(d.derived)) {
				t.put(key, d.derived[key])
			}
			t.orElse = append(t.orElse, clientv3.OpGet(d.unique), clientv3.OpGet(entryKey(d.entry.ID)))
		}
		resp, err := t.commit(ctx, s)
		if err != nil {
			return rev, err
		}
		if resp.Succeeded {
			for _, d := range batch {
				d.result.Entry = d.entry
			}
			return Revision(resp.Header.Revision), nil
		}
		left, seen, err := s.refuse(ctx, batch, resp)
		rev = max(rev, seen)
		if err != nil || len(left) == 0 {
			return rev, err
		}
		batch = left
	}
	return rev, ErrConflict
}

// refuse answers the drafts that resp says exist already, and returns the others
// and the revision of the newest entry in their way.
func (s *Store) refuse(ctx context.Context, batch []*draft, resp *clientv3.TxnResponse) (left []*draft, rev Revision, err error) {
	var similar []*draft
	var keys []string
	for i, d := range batch {
		unique := first(resp.Responses[2*i].GetResponseRange().Kvs)
		taken := first(resp.Responses[2*i+1].GetResponseRange().Kvs)
		switch {
		case unique != nil:
			similar = append(similar, d)
			keys = append(keys, entryKey(string(unique.Value)))
		case taken != nil:
			d.exists(registration.Entry{})
			rev = max(rev, Revision(taken.ModRevision))
		default:
			left = append(left, d)
		}
	}
	if len(similar) == 0 {
		return left, rev, nil
	}
	kvs, err := s.read(ctx, keys...)
	if err != nil {
		return nil, rev, err
	}
	for i, d := range similar {
		if kvs[i] == nil {
			left = append(left, d) // deleted since; try again
			continue
		}
		e, err := decodeEntry(keys[i][len(entryDir):], kvs[i].Value)
		if err != nil {
			return nil, rev, err
		}
		d.exists(e)
		rev = max(rev, Revision(kvs[i].ModRevision))
	}
	return left, rev, nil
}
