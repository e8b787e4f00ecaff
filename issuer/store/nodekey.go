package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
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

// keyState is what is stored about a key that wants to join.
type keyState struct {
	key, token, agent *mvccpb.KeyValue

	id      spiffeid.ID
	nodeKey *storepb.NodeKey
	rec     *storepb.JoinToken // nil where the key is bound already
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

// keyState reads what is known of the key, and of the token if it is needed.
func (s *Store) keyState(ctx context.Context, j KeyJoin) (none keyState, _ error) {
	kvs, err := s.read(ctx, nodeKeyKey(j.KeyHash), tokenKey(j.Token))
	if err != nil {
		return none, s.fault("read the key of a node", err)
	}
	st := keyState{key: kvs[0], token: kvs[1]}
	if st.key != nil {
		err = st.known(j)
	} else {
		err = s.redeem(ctx, j, &st)
	}
	if err != nil {
		return none, err
	}
	kvs, err = s.read(ctx, agentKey(st.id))
	if err != nil {
		return none, s.fault("read the key of a node", err)
	}
	st.agent = kvs[0]
	// Said here too, so that nothing is signed for a banned agent.
	return st, new(txn).admit(st.id, st.agent, &storepb.Agent{})
}

// known reads the record of a key that is bound.
func (st *keyState) known(j KeyJoin) error {
	rec := &storepb.NodeKey{}
	if err := proto.Unmarshal(st.key.Value, rec); err != nil {
		return fmt.Errorf("record of the key of a node: %w", err)
	}
	id, err := spiffeid.FromString(rec.AgentId)
	if err != nil || nodeKeyOf(id) != hex.EncodeToString(j.KeyHash[:]) {
		return fmt.Errorf("record of the key of a node: is of agent %q", rec.AgentId)
	}
	st.id, st.nodeKey = id, rec
	return nil
}

// redeem reads the token for a key that is not bound, and says what it would
// be bound to.
func (s *Store) redeem(ctx context.Context, j KeyJoin, st *keyState) error {
	if j.Token == "" {
		return ErrKeyUnknown
	}
	rec, err := decodeToken(st.token, nodeattest.JoinKey)
	if err != nil {
		return err
	}
	if j.Now.Unix() >= rec.ExpiresAt {
		return s.expireToken(ctx, st.token)
	}
	if rec.Uses >= rec.MaxUses {
		return ErrTokenUnknown
	}
	if err := allowed(rec, j.Peer); err != nil {
		return err
	}
	if st.id, err = joinkey.AgentID(s.cfg.TrustDomain, rec.Group, j.KeyHash); err != nil {
		return fmt.Errorf("record of a join token: %w", err)
	}
	st.rec = rec
	st.nodeKey = &storepb.NodeKey{AgentId: st.id.String(), TokenId: rec.Id, BoundAt: j.Now.Unix(), Selectors: keySelectors(rec)}
	return nil
}

// keySelectors returns what a node gets by the token that it joins with: the
// selectors join_key:group:GROUP and join_key:token:ID, and the token's own.
func keySelectors(rec *storepb.JoinToken) []*types.Selector {
	var selectors []*types.Selector
	if rec.Group != "" {
		selectors = append(selectors, &types.Selector{Type: nodeattest.JoinKey, Value: "group:" + rec.Group})
	}
	if rec.Id != "" {
		selectors = append(selectors, &types.Selector{Type: nodeattest.JoinKey, Value: "token:" + rec.Id})
	}
	return append(selectors, rec.Selectors...)
}

// allowed reports whether the token's CIDRs have peer.
func allowed(rec *storepb.JoinToken, peer netip.Addr) error {
	if len(rec.AllowedCidrs) == 0 {
		return nil
	}
	peer = peer.Unmap().WithZone("")
	for _, text := range rec.AllowedCidrs {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("record of a join token: CIDR %q: %w", text, err)
		}
		if cidr.Contains(peer) {
			return nil
		}
	}
	return ErrTokenPlace
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
