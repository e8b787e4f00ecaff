package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// UpdateEntry replaces the entry by what change makes of it, and counts its
// Revision up; ID and CreatedAt stay. change must be free of other effects: it
// runs again when others change the entry meanwhile. Its error is returned as
// it is, and nothing is written. The error wraps ErrNotFound, ErrExists if
// another entry is like the changed one, or ErrReserved.
func (s *Store) UpdateEntry(ctx context.Context, id string, change func(*registration.Entry) error) (registration.Entry, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return registration.Entry{}, 0, err
	}
	defer end()
	s.entries.RLock()
	e, rev, err := s.updateEntry(ctx, id, change, false)
	s.entries.RUnlock()
	if errors.Is(err, errAlone) {
		s.entries.Lock()
		e, rev, err = s.updateEntry(ctx, id, change, true)
		s.entries.Unlock()
	}
	return e, rev, err
}

// errAlone is returned where an update needs that no other entry changes.
var errAlone = errors.New("needs all entries to stay")

// updateEntry tries until no other is faster. alone says how s.entries is held.
func (s *Store) updateEntry(ctx context.Context, id string, change func(*registration.Entry) error, alone bool) (none registration.Entry, _ Revision, _ error) {
	if validID(id) != nil {
		return none, 0, fmt.Errorf("entry %q: %w", id, ErrNotFound)
	}
	for range maxAttempts {
		e, rev, err := s.updateOnce(ctx, id, change, alone)
		if !errors.Is(err, ErrConflict) {
			return e, rev, err
		}
	}
	return none, 0, fmt.Errorf("entry %s: %w", id, ErrConflict)
}

func (s *Store) updateOnce(ctx context.Context, id string, change func(*registration.Entry) error, alone bool) (none registration.Entry, _ Revision, _ error) {
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
	if err := s.mayRename(ctx, &t, old, e, alone); err != nil {
		return none, 0, err
	}
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

// mayRename checks an entry that is to have another SPIFFE ID or template.
func (s *Store) mayRename(ctx context.Context, t *txn, old, e registration.Entry, alone bool) error {
	var err error
	switch {
	case old.SPIFFEID == e.SPIFFEID && old.Template == e.Template:
		return nil
	case e.Template.IsZero():
		err = s.allow(ctx, t, e)
	case alone:
		err = s.allowTemplate(ctx, t, e)
	default:
		return errAlone
	}
	if err != nil && !errors.Is(err, ErrReserved) {
		err = s.fault("update entry", err)
	}
	return err
}

// rederive writes the derived keys of e that old had not, and deletes those of
// old that e has not.
func (t *txn) rederive(old, e registration.Entry) {
	before, after := derivations(old), derivations(e)
	for _, d := range after {
		if !slices.Contains(before, d) {
			t.put(d.key, d.value)
		}
	}
	for _, d := range before {
		if !slices.Contains(after, d) {
			t.delete(d.key)
		}
	}
	if before[0] != after[0] {
		t.unchanged(after[0].key, 0)
	}
}

// whyNot tells an entry in the way of an update from a race.
func (s *Store) whyNot(ctx context.Context, old, e registration.Entry) error {
	if _, err := s.templates(ctx, true); err != nil { // it may be a new template
		return s.fault("update entry", err)
	}
	if old.Key() == e.Key() {
		return ErrConflict
	}
	kvs, err := s.read(ctx, uniqueKey(e))
	if err != nil {
		return s.fault("update entry", err)
	}
	if kvs[0] == nil || string(kvs[0].Value) == e.ID {
		return ErrConflict
	}
	return fmt.Errorf("entry %s with this SPIFFE ID, parent and selectors: %w", kvs[0].Value, ErrExists)
}
