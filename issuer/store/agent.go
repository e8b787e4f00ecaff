package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// UpdateAgent replaces the agent's record by what change makes of it; nothing
// is written if it makes no difference. change must be free of other effects:
// it runs again when others change the agent meanwhile. Its error is returned
// as it is. The error wraps ErrNotFound if there is no such agent.
func (s *Store) UpdateAgent(ctx context.Context, id spiffeid.ID, change func(*storepb.Agent) error) (*storepb.Agent, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	for range maxAttempts {
		a, rev, err := s.updateAgent(ctx, id, change)
		if !errors.Is(err, ErrConflict) {
			return a, rev, err
		}
	}
	return nil, 0, fmt.Errorf("agent %s: %w", id, ErrConflict)
}

// updateAgent tries once.
func (s *Store) updateAgent(ctx context.Context, id spiffeid.ID, change func(*storepb.Agent) error) (*storepb.Agent, Revision, error) {
	kvs, err := s.read(ctx, agentKey(id))
	if err != nil {
		return nil, 0, s.fault("update agent", err)
	}
	if kvs[0] == nil {
		return nil, 0, fmt.Errorf("agent %s: %w", id, ErrNotFound)
	}
	old, err := decodeAgent(id.String(), kvs[0].Value)
	if err != nil {
		return nil, 0, err
	}
	a := proto.Clone(old).(*storepb.Agent)
	if err := change(a); err != nil {
		return nil, 0, err
	}
	a.SpiffeId = old.SpiffeId
	if proto.Equal(old, a) {
		return a, Revision(kvs[0].ModRevision), nil
	}
	data, err := encode(a)
	if err != nil {
		return nil, 0, err
	}
	var t txn
	t.unchanged(agentKey(id), kvs[0].ModRevision)
	t.put(agentKey(id), data)
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return nil, 0, s.fault("update agent", err)
	case !resp.Succeeded:
		return nil, 0, ErrConflict
	}
	return a, Revision(resp.Header.Revision), nil
}

// DeleteAgent forgets the agent, in one transaction with the entries that give
// it a second ID (its only selector being its own ID), the join token that it
// spent and the node key that it is bound to, so that it needs a new token to
// come back. The error wraps ErrNotFound if there is no such agent.
func (s *Store) DeleteAgent(ctx context.Context, id spiffeid.ID) (Revision, error) {
	return s.deleteAgent(ctx, id, func(*storepb.Agent) bool { return true }, true)
}

// PruneAgent deletes the agent if doomed says so of what is stored now. One that
// can attest again keeps what it needs to come back as it was: its node key, and
// the entries for its second ID. The error wraps ErrNotFound if there is no such
// agent, or it is not doomed.
func (s *Store) PruneAgent(ctx context.Context, id spiffeid.ID, doomed func(*storepb.Agent) bool) (Revision, error) {
	return s.deleteAgent(ctx, id, doomed, false)
}

func (s *Store) deleteAgent(ctx context.Context, id spiffeid.ID, doomed func(*storepb.Agent) bool, evict bool) (Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	for range maxAttempts {
		rev, err := s.deleteAgentOnce(ctx, id, doomed, evict)
		if !errors.Is(err, ErrConflict) {
			return rev, err
		}
	}
	return 0, fmt.Errorf("agent %s: %w", id, ErrConflict)
}

func (s *Store) deleteAgentOnce(ctx context.Context, id spiffeid.ID, doomed func(*storepb.Agent) bool, evict bool) (Revision, error) {
	kvs, err := s.read(ctx, agentKey(id))
	if err != nil {
		return 0, s.fault("delete agent", err)
	}
	if kvs[0] == nil && evict {
		return s.evictPruned(ctx, id)
	}
	if kvs[0] == nil {
		return 0, fmt.Errorf("agent %s: %w", id, ErrNotFound)
	}
	// A record that cannot be read can still be deleted by name.
	if !evict {
		a, err := decodeAgent(id.String(), kvs[0].Value)
		if err != nil || !doomed(a) {
			return 0, fmt.Errorf("agent %s: %w", id, ErrNotFound)
		}
		evict = !a.CanReattest
	}
	var t txn
	t.unchanged(agentKey(id), kvs[0].ModRevision)
	t.delete(agentKey(id))
	if evict {
		if err := s.evict(ctx, &t, id); err != nil {
			return 0, s.fault("delete agent", err)
		}
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("delete agent", err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return Revision(resp.Header.Revision), nil
}

// evictPruned takes the way back from a node whose agent was pruned: its key.
func (s *Store) evictPruned(ctx context.Context, id spiffeid.ID) (Revision, error) {
	notFound := fmt.Errorf("agent %s: %w", id, ErrNotFound)
	hash := nodeKeyOf(id)
	if hash == "" {
		return 0, notFound
	}
	kvs, err := s.read(ctx, nodeKeyDir+hash)
	if err != nil {
		return 0, s.fault("delete agent", err)
	}
	key := &storepb.NodeKey{}
	if kvs[0] == nil || proto.Unmarshal(kvs[0].Value, key) == nil && key.GetAgentId() != id.String() {
		return 0, notFound
	}
	var t txn
	t.unchanged(agentKey(id), 0)
	if err := s.evict(ctx, &t, id); err != nil {
		return 0, s.fault("delete agent", err)
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("delete agent", err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return Revision(resp.Header.Revision), nil
}

// evict adds to t the end of what an agent could come back with. Only agents
// that came by a token have entries that are made for them; those of others are
// left to their makers.
func (s *Store) evict(ctx context.Context, t *txn, id spiffeid.ID) error {
	token, ok := tokenOf(id)
	if ok {
		t.delete(tokenKey(token))
	}
	if deleteNodeKey(t, id) || ok {
		return s.deleteAliases(ctx, t, id)
	}
	return nil
}

// maxAliases bounds the entries that go with an agent in one transaction.
const maxAliases = 1000

// deleteAliases adds the agent's alias entries to t.
func (s *Store) deleteAliases(ctx context.Context, t *txn, id spiffeid.ID) error {
	resp, err := s.client.Get(ctx, aliasesOf(id), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(maxAliases))
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	keys := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		keys[i] = entryKey(strings.TrimPrefix(string(kv.Key), aliasesOf(id)))
	}
	kvs, err := s.read(ctx, keys...)
	if err != nil {
		return err
	}
	for i, kv := range kvs {
		t.delete(string(resp.Kvs[i].Key))
		if kv == nil {
			t.unchanged(keys[i], 0)
			continue
		}
		// A record that cannot be read must not keep the agent alive.
		e, err := decodeEntry(strings.TrimPrefix(keys[i], entryDir), kv.Value)
		if err != nil {
			s.cfg.Log.Error("a record cannot be read and is deleted", "key", keys[i], "error", err)
		}
		t.deleteEntry(keys[i], kv.ModRevision, e)
	}
	return nil
}
