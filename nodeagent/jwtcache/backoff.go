package jwtcache

import (
	"math/rand/v2"
	"time"
)

// backoffs hold off identities that the issuer refuses, by entry ID: whatever
// workloads do in a loop, it isn't asked in one.
type backoffs map[string]backoff

type backoff struct {
	fails int
	until time.Time // has a monotonic reading: no setting of the clock moves it
}

const (
	// longestHold is below what a caller waits, so that each learns what the
	// issuer says now.
	longestHold = 4 * time.Second
	// maxHeld bounds what is remembered.
	maxHeld = 1000
)

// wait returns how long the identity is held off.
func (b backoffs) wait(entryID string, at time.Time) time.Duration {
	return max(0, b[entryID].until.Sub(at))
}

func (b backoffs) failed(entryID string, at time.Time) {
	one := b[entryID]
	if one.fails == 0 && len(b) >= maxHeld {
		b.prune(at)
	}
	one.fails++
	pause := min(longestHold, firstRetry<<min(one.fails-1, 10))
	one.until = at.Add(time.Duration(float64(pause) * (0.8 + 0.2*rand.Float64())))
	b[entryID] = one
}

// prune forgets those that may be asked for again; all, if there are none.
func (b backoffs) prune(at time.Time) {
	for id, one := range b {
		if !at.Before(one.until) {
			delete(b, id)
		}
	}
	if len(b) >= maxHeld {
		clear(b)
	}
}
