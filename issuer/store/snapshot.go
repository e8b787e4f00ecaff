package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// snapshotPage bounds how many records are in memory twice.
const snapshotPage = 2000

// Snapshot is every record as of one revision. Other than the bundle and the
// authorities, what cannot be read is left out and logged: nothing is guessed.
type Snapshot struct {
	Revision Revision
	Entries  []registration.Entry
	Agents   []*storepb.Agent
	// Bundle is nil before the first authority.
	Bundle      *types.Bundle
	Authorities []*storepb.X509Authority
	// Federated are the bundles of other trust domains.
	Federated     []*types.Bundle
	Relationships []*types.FederationRelationship
}

// Snapshot reads everything, to be followed from its revision with Watch.
func (s *Store) Snapshot(ctx context.Context) (Snapshot, error) {
	var entries []registration.Entry
	snap, err := s.Load(ctx, func() func(registration.Entry) {
		entries = nil
		return func(e registration.Entry) { entries = append(entries, e) }
	})
	snap.Entries = entries
	return snap, err
}

// Load is Snapshot for whoever keeps the entries in another form: it hands each
// to what begin returns, and not in the Snapshot. It calls begin again, for what
// was handed over before does not count, where reading took longer than history
// is kept.
func (s *Store) Load(ctx context.Context, begin func() (visit func(registration.Entry))) (Snapshot, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	defer end()
	defer collectAsUsual()
	for range maxAttempts {
		snap, err := s.snapshot(ctx, begin())
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue
		}
		if err != nil {
			return Snapshot{}, s.fault("read snapshot", err)
		}
		return snap, nil
	}
	return Snapshot{}, ErrCompacted
}

func (s *Store) snapshot(ctx context.Context, visit func(registration.Entry)) (Snapshot, error) {
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
	var d registration.Decoder
	err = s.scan(ctx, entryDir, snap.Revision, func(id string, kv *mvccpb.KeyValue) error {
		e, err := decodeNext(&d, id, kv.Value)
		if err == nil {
			visit(e)
		}
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	if err := s.scanInto(ctx, &snap); err != nil {
		return Snapshot{}, err
	}
	return snap, nil
}

// scanInto reads the other records of which there may be many.
func (s *Store) scanInto(ctx context.Context, snap *Snapshot) error {
	if err := scanAll(ctx, s, agentDir, snap.Revision, &snap.Agents, decodeAgent); err != nil {
		return err
	}
	err := scanAll(ctx, s, federatedDir, snap.Revision, &snap.Federated, func(name string, data []byte) (*types.Bundle, error) {
		return decodeFederated(s, name, data, decodeBundle)
	})
	if err != nil {
		return err
	}
	return scanAll(ctx, s, relationshipDir, snap.Revision, &snap.Relationships, func(name string, data []byte) (*types.FederationRelationship, error) {
		return decodeFederated(s, name, data, decodeRelationship)
	})
}

// scanAll appends every record below dir that can be read.
func scanAll[R any](ctx context.Context, s *Store, dir string, rev Revision, all *[]R, decode func(name string, data []byte) (R, error)) error {
	return s.scan(ctx, dir, rev, func(name string, kv *mvccpb.KeyValue) error {
		r, err := decode(name, kv.Value)
		if err == nil {
			*all = append(*all, r)
		}
		return err
	})
}

// scan calls visit for every key below dir as of rev, in order. What visit cannot
// read is logged and left out. etcd counts, for each page, all that is left of
// the range that was asked for, so that paging through one range costs the
// square of its length; many short ranges do not.
func (s *Store) scan(ctx context.Context, dir string, rev Revision, visit func(name string, kv *mvccpb.KeyValue) error) error {
	from := dir
	for to := range cuts(dir) {
		for from < to {
			opts := []clientv3.OpOption{clientv3.WithRange(to), clientv3.WithRev(int64(rev)), clientv3.WithLimit(snapshotPage)}
			if rev > 0 { // it is known to be here
				opts = append(opts, clientv3.WithSerializable())
			}
			resp, err := s.client.Get(ctx, from, opts...)
			if err != nil {
				return err
			}
			for _, kv := range resp.Kvs {
				if err := visit(string(kv.Key[len(dir):]), kv); err != nil {
					s.cfg.Log.Error("a record cannot be read and is left out", "key", string(kv.Key), "error", err)
				}
			}
			if !resp.More {
				break
			}
			from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
		from = to
	}
	return nil
}

// cuts yields the ends of ranges that make up all that is below dir, in order:
// one, or, where names are UUIDs and there may be very many, 256 that these are
// spread over evenly.
func cuts(dir string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 1; i < 256 && dir == entryDir; i++ {
			if !yield(fmt.Sprintf("%s%02x", dir, i)) {
				return
			}
		}
		yield(clientv3.GetPrefixRangeEnd(dir))
	}
}
