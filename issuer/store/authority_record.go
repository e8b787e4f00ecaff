package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// The keys of an issuer's further authority records.
const (
	// jwtAuthorityDir is of the one issuer there is, as authorityDir.
	jwtAuthorityDir = root + "jwt-authority/1/" // + authority ID: storepb.JWTAuthority
	revokedDir      = root + "revoked/"         // + kind + "/" + authority ID: storepb.RevokedAuthority
)

// readCA reads what UpdateCA changes, as of one revision, and the bundle as it
// is stored: nil in a new store.
func (s *Store) readCA(ctx context.Context) (*mvccpb.KeyValue, CAState, error) {
	resp, err := s.client.Txn(ctx).Then(
		clientv3.OpGet(bundleKey),
		clientv3.OpGet(authorityDir, clientv3.WithPrefix()),
		clientv3.OpGet(jwtAuthorityDir, clientv3.WithPrefix()),
		clientv3.OpGet(revokedDir, clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return nil, CAState{}, s.fault("read bundle", err)
	}
	kvs := func(i int) []*mvccpb.KeyValue { return resp.Responses[i].GetResponseRange().Kvs }
	state, err := s.caState(first(kvs(0)), kvs(1))
	if err != nil {
		return nil, CAState{}, err
	}
	if state.JWTAuthorities, err = decodeAll(jwtAuthorityDir, kvs(2), newJWTAuthority, (*storepb.JWTAuthority).GetAuthorityId); err != nil {
		return nil, CAState{}, s.unreadable(err)
	}
	if state.Revoked, err = decodeAll(revokedDir, kvs(3), newRevoked, revokedName); err != nil {
		return nil, CAState{}, s.unreadable(err)
	}
	slices.SortFunc(state.JWTAuthorities, func(a, b *storepb.JWTAuthority) int {
		return cmp.Or(cmp.Compare(a.IssuedAt, b.IssuedAt), cmp.Compare(a.AuthorityId, b.AuthorityId))
	})
	return first(kvs(0)), state, nil
}

func newJWTAuthority() *storepb.JWTAuthority { return &storepb.JWTAuthority{} }
func newRevoked() *storepb.RevokedAuthority  { return &storepb.RevokedAuthority{} }

// revokedName is what follows revokedDir in the key of r; empty if r names nothing.
func revokedName(r *storepb.RevokedAuthority) string {
	if r.GetKind() == "" || r.GetAuthorityId() == "" {
		return ""
	}
	return r.GetKind() + "/" + r.GetAuthorityId()
}

// decodeAll reads the records below dir, each of which bears the name of its key.
func decodeAll[M proto.Message](dir string, kvs []*mvccpb.KeyValue, empty func() M, name func(M) string) ([]M, error) {
	var all []M
	for _, kv := range kvs {
		m := empty()
		if err := proto.Unmarshal(kv.Value, m); err != nil {
			return nil, fmt.Errorf("record %s: %w", kv.Key, err)
		}
		if name(m) != string(kv.Key[len(dir):]) {
			return nil, fmt.Errorf("record %s: holds that of %q", kv.Key, name(m))
		}
		all = append(all, m)
	}
	return all, nil
}

func cloneAll[M proto.Message](all []M) []M {
	clones := slices.Clone(all)
	for i, m := range all {
		clones[i] = proto.Clone(m).(M)
	}
	return clones
}

// putRecords writes the difference between the two sets of records below dir.
func putRecords[M proto.Message](t *txn, dir string, old, now []M, name func(M) string) error {
	before := make(map[string]M, len(old))
	for _, m := range old {
		before[name(m)] = m
	}
	written := make(map[string]bool, len(now))
	for _, m := range now {
		id := name(m)
		if id == "" || written[id] {
			return fmt.Errorf("store: update bundle: authority ID %q is empty or there twice", id)
		}
		written[id] = true
		if was, ok := before[id]; ok && proto.Equal(was, m) {
			continue
		}
		data, err := encode(m)
		if err != nil {
			return err
		}
		t.put(dir+id, data)
	}
	for id := range before {
		if !written[id] {
			t.delete(dir + id)
		}
	}
	return nil
}
