package store

import (
	"context"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxAttempts bounds how often an operation starts over because others wrote
// what it had read. One of the writers always gets through.
const maxAttempts = 1000

// txn gathers one transaction: all of then happens if every condition holds,
// and nothing otherwise.
type txn struct {
	conds []clientv3.Cmp
	then  []clientv3.Op
	// orElse reads what explains the refusal, where that is cheap; it never writes.
	orElse []clientv3.Op
}

// newTxn returns an empty one with room.
func newTxn(conds, then int) txn {
	return txn{conds: make([]clientv3.Cmp, 0, conds), then: make([]clientv3.Op, 0, then)}
}

// unchanged demands that key is as it was read: rev is its ModRevision then, 0
// if it was absent.
func (t *txn) unchanged(key string, rev int64) {
	t.conds = append(t.conds, clientv3.Compare(clientv3.ModRevision(key), "=", rev))
}

func (t *txn) put(key, value string) { t.then = append(t.then, clientv3.OpPut(key, value)) }

func (t *txn) delete(key string) { t.then = append(t.then, clientv3.OpDelete(key)) }

func (t *txn) commit(ctx context.Context, s *Store) (*clientv3.TxnResponse, error) {
	return s.client.Txn(ctx).If(t.conds...).Then(t.then...).Else(t.orElse...).Commit()
}

// read returns the values of keys at one revision, in order, nil where absent. It
// asks no majority (serializable): a lone member has applied whatever it has
// acknowledged, and what is written with the answer holds only if it is unchanged.
// With more members, what is absent would have to be asked for again.
func (s *Store) read(ctx context.Context, keys ...string) ([]*mvccpb.KeyValue, error) {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(key, clientv3.WithSerializable())
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	kvs := make([]*mvccpb.KeyValue, len(keys))
	for i, r := range resp.Responses {
		kvs[i] = first(r.GetResponseRange().Kvs)
	}
	return kvs, nil
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// modRevision is 0 for a key that is absent.
func modRevision(kv *mvccpb.KeyValue) int64 {
	if kv == nil {
		return 0
	}
	return kv.ModRevision
}
