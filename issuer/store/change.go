package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// UpdateEntry replaces the entry by what change makes of it, and counts its
// Revision up; ID and CreatedAt stay. change must be free of other effects: it
// runs again when others change the entry meanwhile. Its error is returned as
// it is, and nothing is written. The error wraps ErrNotFound, or ErrExists if
// another entry is like the changed one.
func (s *Store) UpdateEntry(ctx context.Context, id string, change func(*registration.Entry) error) (registration.Entry, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return registration.Entry{}, 0, err
	}
	defer end()
	for range maxAttempts {
		e, rev, err := s.updateEntry(ctx, id, change)
		if !errors.Is(err, ErrConflict) {
			return e, rev, err
		}
	}
	return registration.Entry{}, 0, fmt.Errorf("entry %s: %w", id, ErrConflict)
}

// updateEntry tries once.
func (s *Store) updateEntry(ctx context.Context, id string, change func(*registration.Entry) error) (none registration.Entry, _ Revision, _ error) {
	if validID(id) != nil {
		return none, 0, fmt.Errorf("entry %q: %w", id, ErrNotFound)
	}
	kvs, err := s.read(ctx, entryKey(id))
	if err != nil {
		return none, 0, s.fault("update entry", err)
	}
	if kvs[0] == nil {
		return none, 0, fmt.Errorf("entry %s: %w", id, ErrNotFound)
	}
	old, err := decodeEntry(id, kvs[0].Value)
	if err != nil {
		return none, 0, err
	}
	e := old
	if err := change(&e); err != nil {
		return none, 0, err
	}
	e = normal(e)
	e.ID, e.CreatedAt, e.Revision = old.ID, old.CreatedAt, old.Revision+1
	data, err := encodeEntry(e)
	if err != nil {
		return none, 0, err
	}
	var t txn
	t.unchanged(entryKey(id), kvs[0].ModRevision)
	t.put(entryKey(id), data)
	t.rederive(old, e)
	resp, err := t.commit(ctx, s)
	if err != nil {
		return none, 0, s.fault("update entry", err)
	}
	if resp.Succeeded {
		return e, Revision(resp.Header.Revision), nil
	}
	return none, 0, s.whyNot(ctx, old, e)
}

// rederive writes the derived keys of e that old had not, and deletes those of
// old that e has not.
func (t *txn) rederive(old, e registration.Entry) {
	before, after := derivedKeys(old), derivedKeys(e)
	for key, value := range after {
		if _, ok := before[key]; !ok {
			t.put(key, value)
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			t.delete(key)
		}
	}
	if old.Key() != e.Key() {
		t.unchanged(uniqueDir+e.Key(), 0)
	}
}

// whyNot tells an entry in the way of an update from a race.
func (s *Store) whyNot(ctx context.Context, old, e registration.Entry) error {
	if old.Key() == e.Key() {
		return ErrConflict
	}
	kvs, err := s.read(ctx, uniqueDir+e.Key())
	if err != nil {
		return s.fault("update entry", err)
	}
	if kvs[0] == nil || string(kvs[0].Value) == e.ID {
		return ErrConflict
	}
	return fmt.Errorf("entry %s with this SPIFFE ID, parent and selectors: %w", kvs[0].Value, ErrExists)
}

// DeleteEntries deletes the entries, in few transactions; the results are as
// with [Store.CreateEntries], with ErrNotFound for an ID that is not there.
func (s *Store) DeleteEntries(ctx context.Context, ids []string) ([]EntryResult, Revision, error) {
	return s.deleteEntries(ctx, ids, func(registration.Entry) bool { return true })
}

// DeleteExpiredEntries deletes those of the entries whose expiry is not after
// now. One that was given a later expiry meanwhile stays, as ErrNotFound.
func (s *Store) DeleteExpiredEntries(ctx context.Context, ids []string, now time.Time) ([]EntryResult, Revision, error) {
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
	for derived := range derivedKeys(e) {
		t.delete(derived)
	}
}
