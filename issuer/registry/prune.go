package registry

import (
	"context"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// prune deletes what has expired, now and then, until ctx ends, and forgets the
// history of 5 to 10 minutes ago.
func (r *Registry) prune(ctx context.Context) {
	ticker := time.NewTicker(pruneInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r.mu.Lock()
		r.history.turn(r.applied)
		r.mu.Unlock()
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

// PruneAgents deletes agents, at most batch of them (0: all), whose SVID expired
// longer than expiredFor ago, and returns how many. Banned agents stay, and
// those that cannot attest again unless tofu is set.
func (r *Registry) PruneAgents(ctx context.Context, expiredFor time.Duration, batch int, tofu bool) (int, error) {
	before := r.store.Now().Add(-expiredFor).Unix()
	doomed := func(a *storepb.Agent) bool {
		return !a.Banned && max(a.NotAfter, a.NewNotAfter) < before && (a.CanReattest || tofu)
	}
	var ids []spiffeid.ID
	r.mu.RLock()
	for id, a := range r.idx.agents {
		if batch > 0 && len(ids) == batch {
			break
		}
		if doomed(a.record) {
			ids = append(ids, id)
		}
	}
	r.mu.RUnlock()
	pruned := 0
	for _, id := range ids {
		switch _, err := r.store.PruneAgent(ctx, id, doomed); {
		case errors.Is(err, store.ErrNotFound): // it came back, or others were faster
		case err != nil:
			return pruned, err
		default:
			r.log.Info("deleted an agent that expired long ago", "agent_id", id.String(), "expired_for", expiredFor)
			pruned++
		}
	}
	return pruned, nil
}

func (r *Registry) expired(now time.Time) (ids []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for id, n := range r.idx.expiring {
		if n.expired(now) {
			ids = append(ids, id)
		}
	}
	return ids
}
