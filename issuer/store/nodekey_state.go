package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// keyState is what is stored about a key that wants to join.
type keyState struct {
	key, token, agent *mvccpb.KeyValue

	id      spiffeid.ID
	nodeKey *storepb.NodeKey
	rec     *storepb.JoinToken // nil where the key is bound already
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
