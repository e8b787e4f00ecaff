package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// decodeToken reads a token's record. What is there for another method is not
// there.
func decodeToken(kv *mvccpb.KeyValue, method string) (*storepb.JoinToken, error) {
	if kv == nil {
		return nil, ErrTokenUnknown
	}
	rec := &storepb.JoinToken{}
	if err := proto.Unmarshal(kv.Value, rec); err != nil {
		return nil, fmt.Errorf("record of a join token: %w", err)
	}
	if MethodOf(rec) != method {
		return nil, ErrTokenUnknown
	}
	return rec, nil
}

// MethodOf returns the method that the token is for.
func MethodOf(rec *storepb.JoinToken) string {
	if rec.GetMethod() == "" {
		return nodeattest.JoinToken
	}
	return rec.GetMethod()
}

// admit adds to t that agent joins as id, whose record was kv. What is known of
// its version stays. The error wraps ErrAgentBanned.
func (t *txn) admit(id spiffeid.ID, kv *mvccpb.KeyValue, agent *storepb.Agent) error {
	if kv != nil {
		old, err := decodeAgent(id.String(), kv.Value)
		if err != nil {
			return err
		}
		if old.Banned {
			return fmt.Errorf("agent %s: %w", id, ErrAgentBanned)
		}
		if agent.AgentVersion == "" {
			agent.AgentVersion = old.AgentVersion
		}
	}
	data, err := encode(agent)
	if err != nil {
		return err
	}
	t.unchanged(agentKey(id), modRevision(kv))
	t.put(agentKey(id), data)
	return nil
}

// useToken adds to t what happens at the first use of the token by a key: rec
// is its new record, and the agent gets the entry for its second ID.
func (s *Store) useToken(ctx context.Context, t *txn, token string, rec *storepb.JoinToken, id spiffeid.ID) error {
	data, err := encode(rec)
	if err != nil {
		return err
	}
	t.put(tokenKey(token), data)
	if rec.AgentId == "" {
		return nil
	}
	alias, err := spiffeid.FromString(rec.AgentId)
	if err != nil {
		return fmt.Errorf("record of a join token: agent ID %q: %w", rec.AgentId, err)
	}
	e := registration.Entry{
		ID:        uuid.NewString(),
		SPIFFEID:  alias,
		ParentID:  id,
		Selectors: []registration.Selector{aliasSelector(id)},
		CreatedAt: s.cfg.Now().UTC().Truncate(time.Second),
	}
	kvs, err := s.read(ctx, uniqueKey(e))
	if err != nil {
		return s.fault("spend join token", err)
	}
	t.unchanged(uniqueKey(e), modRevision(kvs[0]))
	if kvs[0] != nil {
		return nil // somebody made the same entry beforehand
	}
	if err := s.allow(ctx, t, e); err != nil {
		return fmt.Errorf("the join token's second ID: %w", err)
	}
	value, err := encodeEntry(e)
	if err != nil {
		return err
	}
	t.put(entryKey(e.ID), value)
	for key, value := range derivedKeys(e) {
		t.put(key, value)
	}
	return nil
}

// expireToken deletes the token just read and returns ErrTokenExpired.
func (s *Store) expireToken(ctx context.Context, kv *mvccpb.KeyValue) error {
	var t txn
	t.unchanged(string(kv.Key), kv.ModRevision)
	t.delete(string(kv.Key))
	if _, err := t.commit(ctx, s); err != nil {
		return s.fault("delete expired join token", err)
	}
	return ErrTokenExpired
}

// DeleteExpiredTokens deletes the join tokens whose life ended by now, spent or
// not, and returns how many.
func (s *Store) DeleteExpiredTokens(ctx context.Context, now time.Time) (int, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	resp, err := s.client.Get(ctx, tokenDir, clientv3.WithPrefix())
	if err != nil {
		return 0, s.fault("delete expired join tokens", err)
	}
	deleted := 0
	for _, kv := range resp.Kvs {
		rec := &storepb.JoinToken{}
		if err := proto.Unmarshal(kv.Value, rec); err == nil && now.Unix() < rec.ExpiresAt {
			continue
		}
		if err := s.expireToken(ctx, kv); !errors.Is(err, ErrTokenExpired) {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}
