package store

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxPastRevisions bounds how far Past goes back.
const maxPastRevisions = 20_000

// Past calls visit for each record that was written or deleted after some
// revision up to the given one, in order, with what it had been before; Deleted
// says that it was not there. It goes back as far as history is kept, and returns
// where that begins: nothing is known of what came before.
func (s *Store) Past(ctx context.Context, upTo Revision, visit func(rev Revision, was Event)) (begin Revision, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx) // ends the watch
	defer cancel()
	begin = max(0, upTo-maxPastRevisions)
	for range maxAttempts {
		compacted, err := s.past(ctx, begin, upTo, visit)
		if err != nil || compacted == 0 {
			return begin, err
		}
		begin = max(begin, compacted)
	}
	return 0, ErrCompacted
}

// past is Past after a revision. If not all of that is kept, it calls visit for
// nothing and returns the revision up to which it is not.
func (s *Store) past(ctx context.Context, after, upTo Revision, visit func(Revision, Event)) (compacted Revision, _ error) {
	if after >= upTo {
		return 0, nil
	}
	for resp := range s.client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1)) {
		if resp.CompactRevision != 0 {
			return Revision(resp.CompactRevision), nil
		}
		if err := resp.Err(); err != nil {
			return 0, s.fault("read history", err)
		}
		for _, e := range resp.Events {
			rev := Revision(e.Kv.ModRevision)
			if rev > upTo {
				return 0, nil
			}
			was, ok, err := s.before(ctx, e)
			if err != nil {
				return 0, err
			}
			if ok {
				visit(rev, was)
			}
		}
		if Revision(resp.Header.Revision) >= upTo && len(resp.Events) > 0 &&
			Revision(resp.Events[len(resp.Events)-1].Kv.ModRevision) >= upTo {
			return 0, nil
		}
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, errors.New("store: etcd ended the watch")
}

// before is what the record had been. etcd would tell with the event, but looks
// it up on a goroutine that nobody waits for, and falls over where it is closed
// meanwhile.
func (s *Store) before(ctx context.Context, e *clientv3.Event) (was Event, ok bool, _ error) {
	kind, id := kindOf(string(e.Kv.Key))
	if kind == 0 || e.IsCreate() {
		return Event{Kind: kind, ID: id, Deleted: true}, kind != 0, nil
	}
	resp, err := s.client.Get(ctx, string(e.Kv.Key), clientv3.WithRev(e.Kv.ModRevision-1), clientv3.WithSerializable())
	if err != nil {
		return Event{}, false, s.fault("read history", err)
	}
	if len(resp.Kvs) == 0 {
		return Event{}, false, fmt.Errorf("store: what %s was before revision %d is not kept any more", e.Kv.Key, e.Kv.ModRevision)
	}
	was, _ = s.event(&clientv3.Event{Type: clientv3.EventTypePut, Kv: resp.Kvs[0]})
	return was, true, nil
}
