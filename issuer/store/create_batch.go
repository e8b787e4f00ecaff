package store

import (
	"context"
	"slices"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// createBatch creates what can be created, in one transaction, and sets every
// result.
func (s *Store) createBatch(ctx context.Context, batch []*draft) (Revision, error) {
	var rev Revision
	ts, err := s.templates(ctx, false)
	if err == nil && slices.ContainsFunc(batch, func(d *draft) bool { _, clashes := ts.clash(d.entry); return clashes }) {
		ts, err = s.templates(ctx, true) // what is in the way may have gone
	}
	if err != nil {
		return rev, err
	}
	for range maxAttempts {
		t := newTxn(len(batch)+1, 2*len(batch))
		t.templatesUnchanged(ts)
		left := batch[:0:0]
		for _, d := range batch {
			if r, clashes := ts.clash(d.entry); clashes {
				d.result.Err = r.refuse(d.entry)
				continue
			}
			left = append(left, d)
			t.create(d)
		}
		if len(left) == 0 {
			return rev, nil
		}
		s.written.add(left)
		resp, err := t.commit(ctx, s)
		if err != nil {
			s.written.drop(left)
			return rev, err
		}
		if resp.Succeeded {
			for _, d := range left {
				d.result.Entry = d.entry
			}
			return Revision(resp.Header.Revision), nil
		}
		s.written.drop(left)
		left, seen, err := s.refuse(ctx, left)
		rev = max(rev, seen)
		if err != nil || len(left) == 0 {
			return rev, err
		}
		batch = left
		if ts, err = s.templates(ctx, true); err != nil {
			return rev, err
		}
	}
	return rev, ErrConflict
}

// refuse answers the drafts that exist already, and returns the others and the
// revision of the newest entry in their way.
func (s *Store) refuse(ctx context.Context, batch []*draft) (left []*draft, rev Revision, err error) {
	keys := make([]string, 0, 2*len(batch))
	for _, d := range batch {
		keys = append(keys, d.unique, entryKey(d.entry.ID))
	}
	kvs, err := s.read(ctx, keys...)
	if err != nil {
		return nil, 0, err
	}
	var similar []*draft
	keys = keys[:0]
	for i, d := range batch {
		unique, taken := kvs[2*i], kvs[2*i+1]
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
	if kvs, err = s.read(ctx, keys...); err != nil {
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
