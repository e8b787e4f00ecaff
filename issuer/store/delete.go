package store

import (
	"context"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// DeleteEntries deletes the entries, in few transactions; the results are as
// with [Store.CreateEntries], with ErrNotFound for an ID that is not there.
func (s *Store) DeleteEntries(ctx context.Context, ids []string) ([]EntryResult, Revision, error) {
	s.entries.RLock()
	defer s.entries.RUnlock()
	return s.deleteEntries(ctx, ids, func(registration.Entry) bool { return true })
}

// DeleteExpiredEntries deletes those of the entries whose expiry is not after
// now. One that was given a later expiry meanwhile stays, as ErrNotFound.
func (s *Store) DeleteExpiredEntries(ctx context.Context, ids []string, now time.Time) ([]EntryResult, Revision, error) {
	s.entries.RLock()
	defer s.entries.RUnlock()
	return s.deleteEntries(ctx, ids, func(e registration.Entry) bool { return e.Expired(now) })
}

func (s *Store) deleteEntries(ctx context.Context, ids []string, doomed func(registration.Entry) bool) ([]EntryResult, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	results := make([]EntryResult, len(ids))
	seen := make(map[string]bool, len(ids))
	var todo []int
	for i, id := range ids {
		if validID(id) != nil || seen[id] {
			results[i].Err = fmt.Errorf("entry %q: %w", id, ErrNotFound)
			continue
		}
		seen[id] = true
		todo = append(todo, i)
	}
	var rev Revision
	for len(todo) > 0 {
		n := min(len(todo), batchEntries)
		done, err := s.deleteBatch(ctx, ids, todo[:n], results, doomed)
		if err != nil {
			err = s.fault("delete entries", err)
			for _, i := range todo {
				results[i] = EntryResult{Err: err}
			}
			return results, rev, err
		}
		rev = max(rev, done)
		todo = todo[n:]
	}
	return results, rev, nil
}

// deleteBatch deletes the entries at the places in batch, in one transaction.
func (s *Store) deleteBatch(ctx context.Context, ids []string, batch []int, results []EntryResult, doomed func(registration.Entry) bool) (Revision, error) {
	keys := make([]string, len(batch))
	for n, i := range batch {
		keys[n] = entryKey(ids[i])
	}
	for range maxAttempts {
		kvs, err := s.read(ctx, keys...)
		if err != nil {
			return 0, err
		}
		var t txn
		for n, i := range batch {
			results[i] = EntryResult{}
			if kvs[n] == nil {
				results[i].Err = fmt.Errorf("entry %s: %w", ids[i], ErrNotFound)
				continue
			}
			// A record that cannot be read can still be deleted.
			e, err := decodeEntry(ids[i], kvs[n].Value)
			if err == nil && !doomed(e) {
				results[i].Err = fmt.Errorf("entry %s: %w", ids[i], ErrNotFound)
				continue
			}
			results[i].Entry = e
			t.deleteEntry(keys[n], kvs[n].ModRevision, e)
		}
		if len(t.then) == 0 {
			return 0, nil
		}
		resp, err := t.commit(ctx, s)
		if err != nil {
			return 0, err
		}
		if resp.Succeeded {
			return Revision(resp.Header.Revision), nil
		}
	}
	return 0, ErrConflict
}

// deleteEntry deletes an entry with its derived keys; e is zero if its record
// cannot be read.
func (t *txn) deleteEntry(key string, modRevision int64, e registration.Entry) {
	t.unchanged(key, modRevision)
	t.delete(key)
	if e.ID == "" {
		return
	}
	for _, d := range derivations(e) {
		t.delete(d.key)
	}
}
