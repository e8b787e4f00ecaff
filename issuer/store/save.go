package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Save writes a copy of all records, as of one revision, and returns its size
// in bytes. The store goes on meanwhile; history is kept for 5 minutes, so a
// reader that takes longer gets an error, which wraps ErrCompacted. The copy
// holds no private key and no join token, but who can write one can write
// whatever they like into a trust domain.
func (s *Store) Save(ctx context.Context, w io.Writer) (size int64, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	out := newCopyWriter(w)
	if err := s.save(ctx, out); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			err = fmt.Errorf("%w: the copy was read too slowly", ErrCompacted)
		}
		return out.size, s.fault("save", err)
	}
	if err := out.finish(); err != nil {
		return out.size, fmt.Errorf("store: save: %w", err)
	}
	return out.size, nil
}

func (s *Store) save(ctx context.Context, out *copyWriter) error {
	var rev int64
	from, to := root, clientv3.GetPrefixRangeEnd(root)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithRev(rev), clientv3.WithLimit(savePage))
		if err != nil {
			return err
		}
		if rev == 0 {
			rev = resp.Header.Revision // that of later pages is of then
		}
		for _, kv := range resp.Kvs {
			if leftOut(string(kv.Key)) {
				continue
			}
			if err := out.record(kv); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// savePage bounds how many records are in memory at once.
const savePage = 1000

// leftOut says which records no copy has: join tokens, for whoever finds an old
// copy must not be able to join with what was spent since; the mark that this
// store is a copy itself; and its runs, whose revisions mean nothing elsewhere.
func leftOut(key string) bool {
	return strings.HasPrefix(key, tokenDir) || key == restoredKey || key == runsKey
}
