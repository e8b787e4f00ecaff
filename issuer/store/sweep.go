package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// DeleteMode says what becomes of the entries that federate with a trust domain
// whose bundle is deleted. Its numbers are those of the API.
type DeleteMode int

// The modes of [Store.DeleteFederatedBundle].
const (
	// DeleteRestrict fails with ErrInUse where there is such an entry.
	DeleteRestrict DeleteMode = iota
	// DeleteWithEntries deletes them too.
	DeleteWithEntries
	// DeleteDissociate takes the trust domain off them.
	DeleteDissociate
)

// DeleteFederatedBundle deletes the bundle of another trust domain, last of all
// that the mode asks for: where it fails on the way, the same call again goes
// on. The error wraps ErrNotFound, or ErrInUse.
func (s *Store) DeleteFederatedBundle(ctx context.Context, td spiffeid.TrustDomain, mode DeleteMode) (Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	s.entries.Lock()
	defer s.entries.Unlock()
	for range maxAttempts {
		kvs, err := s.read(ctx, federatedDir+td.Name())
		if err != nil {
			return 0, s.fault("delete federated bundle", err)
		}
		if kvs[0] == nil {
			return 0, fmt.Errorf("federated bundle %s: %w", td.Name(), ErrNotFound)
		}
		using, seen, err := s.entriesWhere(ctx, func(e registration.Entry) bool { return slices.Contains(e.FederatesWith, td) })
		if err != nil {
			return 0, s.fault("delete federated bundle", err)
		}
		if len(using) > 0 {
			if err := s.release(ctx, using, td, mode); err != nil {
				return 0, err
			}
			continue // see that no other has come
		}
		var t txn
		t.unchanged(federatedDir+td.Name(), kvs[0].ModRevision)
		t.entriesUnchanged(seen)
		t.delete(federatedDir + td.Name())
		resp, err := t.commit(ctx, s)
		switch {
		case err != nil:
			return 0, s.fault("delete federated bundle", err)
		case resp.Succeeded:
			return Revision(resp.Header.Revision), nil
		}
	}
	return 0, fmt.Errorf("federated bundle %s: %w", td.Name(), ErrConflict)
}

// release parts the entries from the trust domain, as the mode says.
func (s *Store) release(ctx context.Context, using []registration.Entry, td spiffeid.TrustDomain, mode DeleteMode) error {
	switch mode {
	case DeleteWithEntries:
		ids := make([]string, len(using))
		for i, e := range using {
			ids[i] = e.ID
		}
		_, _, err := s.deleteEntries(ctx, ids, func(e registration.Entry) bool { return slices.Contains(e.FederatesWith, td) })
		return err
	case DeleteDissociate:
		return s.dissociate(ctx, using, td)
	default:
		return inUseError(len(using))
	}
}

// inUseError is the number of entries that need a bundle. Its text is SPIRE's.
type inUseError int

func (n inUseError) Error() string {
	return fmt.Sprintf("cannot delete bundle; federated with %d registration entries", int(n))
}

func (n inUseError) Unwrap() error { return ErrInUse }

// dissociate takes td off the entries, as updates of them do: agents must see
// another revision. Those that others changed meanwhile are left as they are.
func (s *Store) dissociate(ctx context.Context, using []registration.Entry, td spiffeid.TrustDomain) error {
	for batch := range slices.Chunk(using, batchEntries) {
		keys := make([]string, len(batch))
		for i, e := range batch {
			keys[i] = entryKey(e.ID)
		}
		kvs, err := s.read(ctx, keys...)
		if err != nil {
			return s.fault("dissociate entries", err)
		}
		var t txn
		for i, kv := range kvs {
			if kv == nil {
				continue
			}
			e, err := decodeEntry(batch[i].ID, kv.Value)
			if err != nil {
				continue
			}
			e.FederatesWith = slices.DeleteFunc(slices.Clone(e.FederatesWith), func(one spiffeid.TrustDomain) bool { return one == td })
			e.Revision++
			data, err := encodeEntry(e)
			if err != nil {
				return err
			}
			t.unchanged(keys[i], kv.ModRevision)
			t.put(keys[i], data)
		}
		if _, err := t.commit(ctx, s); err != nil {
			return s.fault("dissociate entries", err)
		}
	}
	return nil
}

// entriesWhere returns the entries that match, and the revision as of which
// there are no others.
func (s *Store) entriesWhere(ctx context.Context, match func(registration.Entry) bool) (found []registration.Entry, seen Revision, err error) {
	resp, err := s.client.Get(ctx, domainKey, clientv3.WithKeysOnly())
	if err != nil {
		return nil, 0, err
	}
	seen = Revision(resp.Header.Revision)
	var d registration.Decoder
	err = s.scan(ctx, entryDir, seen, func(id string, kv *mvccpb.KeyValue) error {
		e, err := decodeNext(&d, id, kv.Value)
		if err == nil && match(e) {
			found = append(found, e)
		}
		return err
	})
	return found, seen, err
}

// entriesUnchanged demands that no entry was written after rev. What it costs is
// in proportion to the number of entries; few transactions need it.
func (t *txn) entriesUnchanged(rev Revision) {
	t.conds = append(t.conds, clientv3.Compare(clientv3.ModRevision(entryDir).WithPrefix(), "<", int64(rev)+1))
}
