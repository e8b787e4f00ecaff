package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

const (
	nodeKeyDir    = root + "nodekey/" // + hex(SHA-256(SubjectPublicKeyInfo)): storepb.NodeKey
	joinKeyAgents = "/spire/agent/join_key/"
)

var (
	// ErrKeyUnknown is wrapped where a node's key is bound to no agent and comes
	// without a token.
	ErrKeyUnknown = errors.New("the node's key is not known")
	// ErrTokenPlace is wrapped where a token is used from an address that it is
	// not for.
	ErrTokenPlace = errors.New("join token may not be used from this address")
)

// KeyJoin is a node that has proved to hold a key of its own.
type KeyJoin struct {
	// KeyHash is the SHA-256 of the node key's SubjectPublicKeyInfo.
	KeyHash [32]byte
	// Token is needed where the key is not bound yet, and not looked at where it is.
	Token string
	// Peer is where the node's connection comes from; the zero Addr is nowhere.
	Peer netip.Addr
	Now  time.Time
}

// KeyAgent returns the ID that BindKey would admit the node as, and writes
// nothing. The errors are BindKey's.
func (s *Store) KeyAgent(ctx context.Context, j KeyJoin) (spiffeid.ID, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return spiffeid.ID{}, err
	}
	defer end()
	st, err := s.keyState(ctx, j)
	return st.id, err
}

// BindKey admits the node as agent. The first time it binds the key to that ID
// and takes one use of the token, in one transaction with the entry for the
// token's second ID, if it names one; from then on the key alone is enough,
// until the agent is deleted. An ID holds the hash of its key, so it never
// passes to another one. BindKey sets the agent's selectors after those of the
// call: the token's. The error wraps ErrKeyUnknown, ErrTokenUnknown (also of a
// token that is used up), ErrTokenExpired, ErrTokenPlace, ErrAgentBanned,
// ErrReserved where the token's second ID is an ID template's, or
// ErrConflict where agent is not who [Store.KeyAgent] returns (any more);
// nothing is written with an error, but that an expired token is deleted.
func (s *Store) BindKey(ctx context.Context, j KeyJoin, agent *storepb.Agent) (*storepb.Agent, Revision, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	s.entries.RLock()
	defer s.entries.RUnlock()
	for range maxAttempts {
		st, err := s.keyState(ctx, j)
		if err != nil {
			return nil, 0, err
		}
		if st.id.String() != agent.GetSpiffeId() {
			return nil, 0, fmt.Errorf("agent %s: its key is of agent %s: %w", agent.GetSpiffeId(), st.id, ErrConflict)
		}
		bound := proto.Clone(agent).(*storepb.Agent)
		bound.Selectors = append(bound.Selectors, st.nodeKey.Selectors...)
		rev, err := s.bindKey(ctx, j, st, bound)
		if errors.Is(err, ErrConflict) {
			continue
		}
		return bound, rev, err
	}
	return nil, 0, fmt.Errorf("agent %s: %w", agent.GetSpiffeId(), ErrConflict)
}

// bindKey tries once.
func (s *Store) bindKey(ctx context.Context, j KeyJoin, st keyState, agent *storepb.Agent) (Revision, error) {
	var t txn
	t.unchanged(nodeKeyKey(j.KeyHash), modRevision(st.key))
	if err := t.admit(st.id, st.agent, agent); err != nil {
		return 0, err
	}
	if st.rec != nil {
		t.unchanged(tokenKey(j.Token), modRevision(st.token))
		data, err := encode(st.nodeKey)
		if err != nil {
			return 0, err
		}
		t.put(nodeKeyKey(j.KeyHash), data)
		st.rec.Uses++
		if err := s.useToken(ctx, &t, j.Token, st.rec, st.id); err != nil {
			return 0, err
		}
	}
	resp, err := t.commit(ctx, s)
	switch {
	case err != nil:
		return 0, s.fault("bind the key of a node", err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return Revision(resp.Header.Revision), nil
}

func nodeKeyKey(hash [32]byte) string { return nodeKeyDir + hex.EncodeToString(hash[:]) }

// nodeKeyOf returns the hash, in hex, of the key that an agent's ID was made
// from; "" for an agent of another method.
func nodeKeyOf(agent spiffeid.ID) string {
	rest, ok := strings.CutPrefix(agent.Path(), joinKeyAgents)
	if !ok {
		return ""
	}
	return rest[strings.LastIndexByte(rest, '/')+1:]
}

// deleteNodeKey adds to t that the key of an agent that joined by join_key is
// bound to nothing any more. It reports whether the agent's ID is such a one.
func deleteNodeKey(t *txn, agent spiffeid.ID) bool {
	hash := nodeKeyOf(agent)
	if hash != "" {
		t.delete(nodeKeyDir + hash)
	}
	return hash != ""
}
