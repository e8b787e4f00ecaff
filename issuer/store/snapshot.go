package store

import (
	"context"
	"errors"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// snapshotPage bounds how many records are in memory twice.
const snapshotPage = 10_000

// Snapshot is every record as of one revision. Entries and agents whose record
// cannot be read are left out and logged: nothing is guessed for them.
type Snapshot struct {
	Revision Revision
	Entries  []registration.Entry
	Agents   []*storepb.Agent
	// Bundle is nil before the first authority.
	Bundle      *types.Bundle
	Authorities []*storepb.X509Authority
}

// Snapshot reads everything, to be followed from its revision with Watch.
func (s *Store) Snapshot(ctx context.Context) (Snapshot, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	defer end()
	for range maxAttempts {
		snap, err := s.snapshot(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue // it took longer than history is kept
		}
		if err != nil {
			return Snapshot{}, s.fault("read snapshot", err)
		}
		return snap, nil
	}
	return Snapshot{}, ErrCompacted
}

func (s *Store) snapshot(ctx context.Context) (Snapshot, error) {
	resp, err := s.client.Txn(ctx).Then(clientv3.OpGet(bundleKey), clientv3.OpGet(authorityDir, clientv3.WithPrefix())).Commit()
	if err != nil {
		return Snapshot{}, err
	}
	snap := Snapshot{Revision: Revision(resp.Header.Revision)}
	bundleKV := first(resp.Responses[0].GetResponseRange().Kvs)
	ca, err := s.caState(bundleKV, resp.Responses[1].GetResponseRange().Kvs)
	if err != nil {
		return Snapshot{}, err
	}
	snap.Authorities = ca.Authorities
	if bundleKV != nil {
		snap.Bundle = ca.Bundle
	}
	err = s.scan(ctx, entryDir, snap.Revision, func(id string, kv *mvccpb.KeyValue) error {
		e, err := decodeEntry(id, kv.Value)
		if err == nil {
			snap.Entries = append(snap.Entries, e)
		}
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	err = s.scan(ctx, agentDir, snap.Revision, func(id string, kv *mvccpb.KeyValue) error {
		a, err := decodeAgent(id, kv.Value)
		if err == nil {
			snap.Agents = append(snap.Agents, a)
		}
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	return snap, nil
}

// scan calls visit for every key below dir as of rev. What visit cannot read is
// logged and left out.
func (s *Store) scan(ctx context.Context, dir string, rev Revision, visit func(name string, kv *mvccpb.KeyValue) error) error {
	from, to := dir, clientv3.GetPrefixRangeEnd(dir)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithRev(int64(rev)), clientv3.WithLimit(snapshotPage))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := visit(string(kv.Key[len(dir):]), kv); err != nil {
				s.cfg.Log.Error("a record cannot be read and is left out", "key", string(kv.Key), "error", err)
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
