package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

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
	derived []derivedKey // the first is unique
	unique  string
	// named says that the creator chose the ID, so that it may be there already.
	named  bool
	result *EntryResult
}

// CreateEntries creates each entry unless one with its ID or its Key exists, or
// its SPIFFE ID is reserved to a template; it sets ID and CreatedAt where they
// are empty, and Revision to 0. Each result stands for itself. The entries go
// into few transactions, each of which happens as a whole; when a transaction
// cannot be made, its entries and those after it have the error in their
// results, which is also returned. Entries with templates go last, one by one:
// each is compared with all that there are.
func (s *Store) CreateEntries(ctx context.Context, entries []registration.Entry) ([]EntryResult, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	results := make([]EntryResult, len(entries))
	var drafts, templates []*draft
	for i, e := range entries {
		switch d := s.draft(e, &results[i]); {
		case d == nil:
		case d.entry.Template.IsZero():
			drafts = append(drafts, d)
		default:
			templates = append(templates, d)
		}
	}
	rev, err := s.createDrafts(ctx, drafts)
	for len(templates) > 0 && err == nil {
		var done Revision
		done, err = s.createTemplate(ctx, templates[0])
		rev = max(rev, done)
		templates = templates[1:]
	}
	if err == nil {
		return results, rev, nil
	}
	err = s.fault("create entries", err)
	for i := range results {
		if results[i].Entry.ID == "" && results[i].Err == nil {
			results[i].Err = err
		}
	}
	return results, rev, err
}

// createDrafts creates entries without templates.
func (s *Store) createDrafts(ctx context.Context, drafts []*draft) (Revision, error) {
	s.entries.RLock()
	defer s.entries.RUnlock()
	var rev Revision
	for len(drafts) > 0 {
		batch, again, rest := nextBatch(drafts)
		done, err := s.createBatch(ctx, batch)
		rev = max(rev, done)
		if err != nil {
			return rev, err
		}
		drafts = append(resolveTwins(batch, again), rest...)
	}
	return rev, nil
}

// createTemplate creates an entry with a template.
func (s *Store) createTemplate(ctx context.Context, d *draft) (Revision, error) {
	s.entries.Lock()
	defer s.entries.Unlock()
	for range maxAttempts {
		var t txn
		switch err := s.allowTemplate(ctx, &t, d.entry); {
		case errors.Is(err, ErrReserved):
			// One that is the same is told before one that is only in the way.
			if _, rev, err := s.refuse(ctx, []*draft{d}); err != nil || d.result.Err != nil {
				return rev, err
			}
			d.result.Err = err
			return 0, nil
		case err != nil:
			return 0, err
		}
		t.create(d)
		resp, err := t.commit(ctx, s)
		switch {
		case err != nil:
			return 0, err
		case resp.Succeeded:
			d.result.Entry = d.entry
			return Revision(resp.Header.Revision), nil
		}
		left, rev, err := s.refuse(ctx, []*draft{d})
		if err != nil || len(left) == 0 {
			return rev, err
		}
	}
	return 0, ErrConflict
}

// create adds d to t, which fails if it is there.
func (t *txn) create(d *draft) {
	t.unchanged(d.unique, 0)
	if d.named {
		t.unchanged(entryKey(d.entry.ID), 0)
	}
	t.put(entryKey(d.entry.ID), d.data)
	for _, k := range d.derived {
		t.put(k.key, k.value)
	}
}

// draft completes an entry; nil if it cannot be stored.
func (s *Store) draft(e registration.Entry, result *EntryResult) *draft {
	named := e.ID != ""
	if !named {
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
	d := &draft{entry: e, derived: derivations(e), named: named, result: result}
	d.unique = d.derived[0].key
	if d.data, result.Err = encodeEntry(e); result.Err != nil {
		return nil
	}
	return d
}

// normal returns e as it is read again: whole seconds, selectors sorted, and no
// member of either set twice.
func normal(e registration.Entry) registration.Entry {
	e.X509SVIDTTL, e.JWTSVIDTTL = e.X509SVIDTTL.Truncate(time.Second), e.JWTSVIDTTL.Truncate(time.Second)
	if !e.ExpiresAt.IsZero() {
		e.ExpiresAt = e.ExpiresAt.UTC().Truncate(time.Second)
	}
	e.Selectors = registration.SortedSelectors(e.Selectors)
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
