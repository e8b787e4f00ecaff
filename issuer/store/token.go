package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
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
	rec, spent, err := s.spendable(ctx, tokenKV, j)
	if err != nil {
		return 0, err
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

// CheckToken returns the error that SpendToken would have for the token itself,
// so that nothing is signed for who has none.
func (s *Store) CheckToken(ctx context.Context, j Join) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	kvs, err := s.read(ctx, tokenKey(j.Token))
	if err != nil {
		return s.fault("check join token", err)
	}
	_, _, err = s.spendable(ctx, kvs[0], j)
	return err
}

// spendable reads the record of a token that the key may use, and whether it has
// before.
func (s *Store) spendable(ctx context.Context, kv *mvccpb.KeyValue, j Join) (rec *storepb.JoinToken, spent bool, err error) {
	if rec, err = decodeToken(kv, nodeattest.JoinToken); err != nil {
		return nil, false, err
	}
	spent = len(rec.SpentBy) > 0
	if spent && !bytes.Equal(rec.SpentBy, j.KeyHash[:]) {
		return nil, false, ErrTokenUnknown
	}
	if j.Now.Unix() >= rec.ExpiresAt {
		return nil, false, s.expireToken(ctx, kv)
	}
	return rec, spent, nil
}
