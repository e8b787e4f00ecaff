package keep

import (
	"context"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Cache is what is kept.
type Cache interface {
	// Holds returns what is worth keeping, nil before there is anything. Agent and
	// Saved are not set.
	Holds() *State
	// News returns a channel that has an element when Holds returns something
	// new since it was last read: entries, bundles, or SVIDs where none were.
	News() <-chan struct{}
	// Version grows with anything that Holds returns.
	Version() uint64
}

// Config says what is kept where.
type Config struct {
	File  *File
	Cache Cache
	// AgentID returns whose it is; zero while the agent has not joined.
	AgentID func() spiffeid.ID
	// Log may be nil.
	Log *slog.Logger
}

const (
	// soon is how long after something new it is written, with what else has
	// come by then.
	soon = time.Second
	// seldom is how often renewed SVIDs are written: the older ones do as well.
	seldom = 30 * time.Second
	// share is how much of the time is spent on writing at most: one part of it.
	share = 20
)

// Run keeps what the cache holds until ctx ends, and once more then. That the disk
// is full, or the like, it logs; it tries again.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := keeper{cfg: cfg}
	timer := time.NewTimer(seldom)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			k.save()
			return ctx.Err()
		case <-cfg.Cache.News():
			timer.Reset(max(soon, k.rest))
			select {
			case <-ctx.Done():
				continue
			case <-timer.C:
			}
		case <-timer.C:
		}
		k.save()
		timer.Reset(max(seldom, k.rest))
	}
}

// keeper remembers what was written.
type keeper struct {
	cfg     Config
	version uint64
	failing bool
	rest    time.Duration // after the last write, before the next
}

func (k *keeper) save() {
	version := k.cfg.Cache.Version()
	agent := k.cfg.AgentID()
	if version == k.version || agent.IsZero() {
		return
	}
	state := k.cfg.Cache.Holds()
	if state == nil {
		return
	}
	began := time.Now()
	state.Agent, state.Saved = agent, began.Round(0)
	err := k.cfg.File.Save(state)
	k.rest = share * time.Since(began)
	switch {
	case err == nil:
		k.version = version
		if k.failing {
			k.cfg.Log.Info("workloads' SVIDs are kept on disk again")
		}
	case !k.failing:
		k.cfg.Log.Error("workloads' SVIDs can't be kept on disk: an agent that restarts while the issuer is away has none", "reason", err)
	}
	k.failing = err != nil
}
