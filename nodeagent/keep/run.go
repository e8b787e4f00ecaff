package keep

import (
	"context"
	"log/slog"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Cache is what is kept.
type Cache interface {
	// Holds returns what is worth keeping, nil before there is anything. Agent and
	// Saved are not set.
	Holds() *State
	// News returns a channel that has an element when Holds returns something
	// new since it was last called: entries, bundles, or SVIDs where none were.
	News() <-chan struct{}
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

// Run keeps what the cache holds until ctx ends, and once more then.
func Run(ctx context.Context, cfg Config) error {
	<-ctx.Done()
	return ctx.Err()
}
