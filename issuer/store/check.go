package store

import (
	"context"
	"fmt"
)

// Check returns nil if the store answers now: a read that etcd confirms with its log first, so it fails where a write
// would wait for a majority. What the disk refuses ends the store by itself ([Store.Done]).
func (s *Store) Check(ctx context.Context) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if _, err := s.client.Get(ctx, domainKey); err != nil {
		return fmt.Errorf("store: %w", s.fault("check", err))
	}
	return nil
}

// Usage says how much the records take.
type Usage struct {
	Bytes    int64 // of the file, free pages included
	Quota    int64 // above which writes are refused
	Revision Revision
}

// Usage is what the store takes now; zero once it is closed.
func (s *Store) Usage() Usage {
	_, end, err := s.begin(s.life)
	if err != nil {
		return Usage{}
	}
	defer end()
	return Usage{
		Bytes:    s.etcd.Server.Backend().Size(),
		Quota:    quotaBytes,
		Revision: Revision(s.etcd.Server.KV().Rev()),
	}
}
