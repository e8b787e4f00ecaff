package svidcache

import (
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
)

// Expect announces that [Cache.Restore] or [Cache.Apply] is about to be called:
// who asks before is held for a while, and not told [ErrNotSynced].
func (c *Cache) Expect() {}

// Holds returns what is worth keeping on disk.
func (c *Cache) Holds() *keep.State { return &keep.State{} }

// Restore serves what was kept until the issuer is there. It does nothing once
// [Cache.Apply] was called.
func (c *Cache) Restore(s *keep.State, now time.Time) {}

// News has an element when there are entries, bundles or first SVIDs that
// [Cache.Holds] has not told of yet. It is for one reader.
func (c *Cache) News() <-chan struct{} { return nil }
