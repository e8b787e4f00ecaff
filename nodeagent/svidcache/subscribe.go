package svidcache

import (
	"context"
	"errors"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// What a [Subscription] ends or fails with.
var (
	// ErrNotSynced: the issuer's state is not known yet.
	ErrNotSynced = errors.New("the agent has not synced with the issuer yet")
	// ErrNoIdentity: no entry matches the caller's selectors.
	ErrNoIdentity = errors.New("no identity issued")
	// ErrPending: an entry matches and its SVID could not be had in time.
	ErrPending = errors.New("the identity is still being issued")
)

// patience is how long a stream waits for its first answer.
const patience = 5 * time.Second

// Subscription is one stream's view of its caller's identities. It is used by
// one goroutine, and must be closed.
type Subscription struct {
	c          *Cache
	g          *group
	needsSVIDs bool
	answer     *Answer     // returned last
	bundles    *Bundles    // returned last
	jwt        *JWTBundles // returned last
}

// Subscribe returns the subscription of a caller with the selectors to its SVIDs:
// those not kept yet are signed at once.
func (c *Cache) Subscribe(selectors []registration.Selector) *Subscription {
	return c.subscribe(selectors, true)
}

// SubscribeBundles returns the subscription of a caller with the selectors to
// the bundles alone.
func (c *Cache) SubscribeBundles(selectors []registration.Selector) *Subscription {
	return c.subscribe(selectors, false)
}

func (c *Cache) subscribe(selectors []registration.Selector, needsSVIDs bool) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Subscription{c: c, g: c.join(selectors, needsSVIDs), needsSVIDs: needsSVIDs}
}

// Close gives the subscription up.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.leave(s.g, s.needsSVIDs)
}

// Reselect says that the caller's selectors are now these. It is true if they
// were others before: then what was returned last no longer counts.
func (s *Subscription) Reselect(selectors []registration.Selector) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if groupKey(registration.SortSelectors(selectors)) == s.g.key {
		return false
	}
	old := s.g
	s.g = s.c.join(selectors, s.needsSVIDs)
	s.c.leave(old, s.needsSVIDs)
	s.answer, s.bundles, s.jwt = nil, nil, nil
	return true
}

// Answer blocks until there is an answer other than that returned before. It
// fails with [ErrNotSynced] and [ErrNoIdentity] at once, with [ErrPending] if the
// first answer takes longer than 5 s, and with ctx's error. An answer whose SVID
// expired while the issuer is away is not returned: the stream goes on waiting.
func (s *Subscription) Answer(ctx context.Context) (*Answer, error) {
	answer, err := wait(ctx, s, s.answer, func(set *set) *Answer {
		if set.answer != nil && !time.Now().Before(set.answer.expires) {
			return nil
		}
		return set.answer
	})
	if err == nil {
		s.answer = answer
	}
	return answer, err
}

// Bundles blocks until there are bundles other than those returned before, and
// fails as [Subscription.Answer].
func (s *Subscription) Bundles(ctx context.Context) (*Bundles, error) {
	bundles, err := wait(ctx, s, s.bundles, func(set *set) *Bundles { return set.bundles })
	if err == nil {
		s.bundles = bundles
	}
	return bundles, err
}

func wait[T any](ctx context.Context, s *Subscription, last *T, pick func(*set) *T) (*T, error) {
	var timeout <-chan time.Time
	if last == nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		next, changed, err := look(s, pick)
		if err != nil {
			return nil, err
		}
		if next != nil && next != last {
			return next, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, ErrPending
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func look[T any](s *Subscription, pick func(*set) *T) (*T, <-chan struct{}, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case !s.c.synced:
		return nil, nil, ErrNotSynced
	case s.g.set == nil:
		return nil, nil, ErrNoIdentity
	}
	return pick(s.g.set), s.g.changed, nil
}

// Nearest returns the entry that a caller with the selectors lacks the fewest
// for, and which; it is false if there is no entry at all. It reads all entries.
func (c *Cache) Nearest(selectors []registration.Selector) (registration.Entry, []registration.Selector, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.nearest(registration.NewSelectorSet(selectors...))
}
