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
