package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

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
