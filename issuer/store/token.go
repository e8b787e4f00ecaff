package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// CreateToken stores rec for a join token, under a hash of it. The error wraps
// ErrExists if the token is there already, spent or not.
func (s *Store) CreateToken(ctx context.Context, token string, rec *storepb.JoinToken) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if token == "" {
		return errors.New("store: the join token is empty")
	}
	data, err := encode(rec)
	if err != nil {
		return err
	}
	var t txn
	t.unchanged(tokenKey(token), 0)
	t.put(tokenKey(token), data)
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return s.fault("create join token", err)
	case !resp.Succeeded:
		return fmt.Errorf("join token: %w", ErrExists)
	}
	return nil
}

// Join is an agent that presents a join token. The caller has checked that the
// agent holds the key.
type Join struct {
	Token string
	// KeyHash is the SHA-256 of the agent's SubjectPublicKeyInfo.
	KeyHash [32]byte
	// Agent is the record to store, with the serial of its new SVID.
	Agent *storepb.Agent
	Now   time.Time
}

// SpendToken admits the agent and binds the token to its key, in one
// transaction with the entry for the token's agent ID, if it names one. Within
// the token's life the same key may come again, and replaces the agent's
// record, for an answer can be lost on the way. The error wraps
// ErrTokenUnknown, ErrTokenExpired (the token is deleted then), ErrAgentBanned,
// or ErrReserved where the token's agent ID is an ID template's; nothing else is
// written with an error.
func (s *Store) SpendToken(ctx context.Context, j Join) (*storepb.Agent, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	id, err := spiffeid.FromString(j.Agent.GetSpiffeId())
	if err != nil {
		return nil, 0, fmt.Errorf("store: spend join token: agent ID %q: %w", j.Agent.GetSpiffeId(), err)
	}
	s.entries.RLock()
	defer s.entries.RUnlock()
	j.Agent = proto.Clone(j.Agent).(*storepb.Agent)
	for range maxAttempts {
		rev, err := s.spend(ctx, j, id)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		return j.Agent, rev, nil
	}
	return nil, 0, fmt.Errorf("join token: %w", ErrConflict)
}

// spend tries once.
func (s *Store) spend(ctx context.Context, j Join, id spiffeid.ID) (Revision, error) {
	kvs, err := s.read(ctx, tokenKey(j.Token), agentKey(id))
	if err != nil {
		return 0, s.fault("spend join token", err)
	}
	tokenKV, agentKV := kvs[0], kvs[1]
	rec, err := decodeToken(tokenKV, nodeattest.JoinToken)
	if err != nil {
		return 0, err
	}
	spent := len(rec.SpentBy) > 0
	if spent && !bytes.Equal(rec.SpentBy, j.KeyHash[:]) {
		return 0, ErrTokenUnknown
	}
	if j.Now.Unix() >= rec.ExpiresAt {
		return 0, s.expireToken(ctx, tokenKV)
	}
	t := txn{}
	t.unchanged(tokenKey(j.Token), tokenKV.ModRevision)
	if err := t.admit(id, agentKV, j.Agent); err != nil {
		return 0, err
	}
	if !spent {
		rec.SpentBy = j.KeyHash[:]
		if err := s.useToken(ctx, &t, j.Token, rec, id); err != nil {
			return 0, err
		}
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("spend join token", err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return Revision(resp.Header.Revision), nil
}

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
