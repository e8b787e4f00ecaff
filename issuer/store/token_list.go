package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// TokenInfo is a join token as the store knows it: without the token itself.
type TokenInfo struct {
	Record *storepb.JoinToken
	// Agents are the IDs of those that joined with it by join_key, at most 100.
	Agents []string
}

const maxTokenAgents = 100

// Tokens returns the join tokens whose life is not over at now, oldest first.
func (s *Store) Tokens(ctx context.Context, now time.Time) ([]TokenInfo, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var tokens []TokenInfo
	err = s.scanTokens(ctx, func(rec *storepb.JoinToken, _ *mvccpb.KeyValue) {
		if now.Unix() < rec.ExpiresAt {
			tokens = append(tokens, TokenInfo{Record: rec})
		}
	})
	if err != nil {
		return nil, s.fault("list join tokens", err)
	}
	slices.SortStableFunc(tokens, func(a, b TokenInfo) int { return int(a.Record.CreatedAt - b.Record.CreatedAt) })
	byID := make(map[string]*TokenInfo, len(tokens))
	for i := range tokens {
		byID[tokens[i].Record.Id] = &tokens[i]
	}
	err = s.scan(ctx, nodeKeyDir, 0, func(_ string, kv *mvccpb.KeyValue) error {
		rec := &storepb.NodeKey{}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return err
		}
		if token := byID[rec.TokenId]; token != nil && rec.TokenId != "" && len(token.Agents) < maxTokenAgents {
			token.Agents = append(token.Agents, rec.AgentId)
		}
		return nil
	})
	if err != nil {
		return nil, s.fault("list join tokens", err)
	}
	return tokens, nil
}

// RevokeToken deletes the token of that ID, however often it was used; who
// joined with it stays. The error wraps ErrNotFound.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	for range maxAttempts {
		err := s.revokeToken(ctx, id)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("join token %q: %w", id, ErrConflict)
}

// revokeToken tries once.
func (s *Store) revokeToken(ctx context.Context, id string) error {
	var t txn
	err := s.scanTokens(ctx, func(rec *storepb.JoinToken, kv *mvccpb.KeyValue) {
		if rec.Id == id && id != "" {
			t.unchanged(string(kv.Key), kv.ModRevision)
			t.delete(string(kv.Key))
		}
	})
	if err != nil {
		return s.fault("revoke join token", err)
	}
	if len(t.then) == 0 {
		return fmt.Errorf("join token %q: %w", id, ErrNotFound)
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return s.fault("revoke join token", err)
	case !resp.Succeeded:
		return ErrConflict
	}
	return nil
}

func (s *Store) scanTokens(ctx context.Context, visit func(*storepb.JoinToken, *mvccpb.KeyValue)) error {
	return s.scan(ctx, tokenDir, 0, func(_ string, kv *mvccpb.KeyValue) error {
		rec := &storepb.JoinToken{}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return err
		}
		visit(rec, kv)
		return nil
	})
}
