package registry

import (
	"context"
	"time"
)

// prune deletes what has expired, now and then, until ctx ends.
func (r *Registry) prune(ctx context.Context) {
	ticker := time.NewTicker(pruneInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := r.Prune(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("expired records were not deleted; trying again later", "error", err)
		}
	}
}

// Prune has the store delete the entries that have expired, and the join
// tokens. Run does so every 5 minutes.
func (r *Registry) Prune(ctx context.Context) error {
	now := r.store.Now()
	expired := r.expired(now)
	if len(expired) > 0 {
		results, _, err := r.store.DeleteExpiredEntries(ctx, expired, now)
		for _, result := range results {
			if result.Err == nil {
				e := result.Entry
				r.log.Info("deleted an expired entry", "entry_id", e.ID, "spiffe_id", e.SPIFFEID.String(), "expired_at", e.ExpiresAt)
			}
		}
		if err != nil {
			return err
		}
	}
	_, err := r.store.DeleteExpiredTokens(ctx, now)
	return err
}

func (r *Registry) expired(now time.Time) (ids []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for id, e := range r.idx.expiring {
		if e.Expired(now) {
			ids = append(ids, id)
		}
	}
	return ids
}
