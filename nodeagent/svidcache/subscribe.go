package svidcache

import (
	"cmp"
	"context"
	"errors"
	"time"
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
	cohort     *cohort
	needsSVIDs bool
	answer     *Answer     // returned last
	bundles    *Bundles    // returned last
	jwt        *JWTBundles // returned last
}

// Subscribe returns the subscription of a caller to its SVIDs: those not kept yet
// are signed at once.
func (c *Cache) Subscribe(caller Caller) *Subscription { return c.subscribe(caller, true) }

// SubscribeBundles returns the subscription of a caller to the bundles alone.
func (c *Cache) SubscribeBundles(caller Caller) *Subscription { return c.subscribe(caller, false) }

func (c *Cache) subscribe(caller Caller, needsSVIDs bool) *Subscription {
	caller = caller.normal()
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Subscription{c: c, cohort: c.join(caller, needsSVIDs), needsSVIDs: needsSVIDs}
}

// Close gives the subscription up.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.leave(s.cohort, s.needsSVIDs)
}

// Reselect says that the caller is now this. It is true if it was another
// before: then what was returned last no longer counts.
func (s *Subscription) Reselect(caller Caller) bool {
	caller = caller.normal()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if caller.key() == s.cohort.group.key {
		return false
	}
	old := s.cohort
	s.cohort = s.c.join(caller, s.needsSVIDs)
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
		if set.answer != nil && !s.c.cfg.Now().Before(set.answer.expires) {
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
	bundles, err := wait(ctx, s, s.bundles, func(set *set) *Bundles { return set.trust.x509 })
	if err == nil {
		s.bundles = bundles
	}
	return bundles, err
}

// JWTBundles blocks until there are JWT bundles other than those returned before,
// and fails as [Subscription.Answer].
func (s *Subscription) JWTBundles(ctx context.Context) (*JWTBundles, error) {
	bundles, err := wait(ctx, s, s.jwt, func(set *set) *JWTBundles { return set.trust.jwt })
	if err == nil {
		s.jwt = bundles
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
		if err != nil && changed == nil {
			return nil, err
		}
		if next != nil && next != last {
			return next, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, cmp.Or(err, ErrPending)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look returns what there is now, and what is closed when that may have changed;
// nil: the error is final.
func look[T any](s *Subscription, pick func(*set) *T) (*T, <-chan struct{}, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch err := s.c.knows(); {
	case err != nil && s.c.expected > 0:
		return nil, s.cohort.changed, err
	case err != nil:
		return nil, nil, err
	case s.cohort.group.set == nil:
		return nil, nil, s.c.none()
	}
	return pick(s.cohort.group.set), s.cohort.changed, nil
}

// knows fails while there is nothing to answer with; c.mu is held.
func (c *Cache) knows() error {
	if !c.synced && !c.restored {
		return ErrNotSynced
	}
	return nil
}

// none is what is said to whom no entry matches. What was kept may be older than
// the caller's entry: only the issuer can say that there is none.
func (c *Cache) none() error {
	if !c.synced {
		return ErrNotSynced
	}
	return ErrNoIdentity
}
