// Package jwtcache owns the JWT-SVIDs that workloads have asked for: one token
// per identity and audiences, until half its life is over. It does not decide
// who gets which identity, and validates no tokens. Tokens are secrets: none is
// ever logged.
package jwtcache

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// Signer has JWT-SVIDs signed by the issuer.
type Signer interface {
	// NewJWTSVID has one signed for an entry, or an instance of a template,
	// ID~/path. It returns soon after ctx ends. Errors have the issuer's gRPC
	// status code.
	NewJWTSVID(ctx context.Context, entryID string, audience []string) (jwtsvid.Token, error)
}

// Config says who signs and how many tokens are kept.
type Config struct {
	Signer Signer
	// MaxSize is how many tokens are kept; 0 is 1000. Below 0 none are.
	MaxSize int
	// CacheHitTimeout is how long a caller waits for a newer token where there is
	// one that is good, but past half its life; 0 is 1 s.
	CacheHitTimeout time.Duration
	// Now is the wall clock; nil is the machine's.
	Now func() time.Time
	// Signed is told of each request to the issuer. May be nil.
	Signed func(n int, took time.Duration, err error)
	// Log may be nil.
	Log *slog.Logger
}

const (
	defaultMaxSize = 1000
	// patience is how long a caller waits for a token, and the issuer is tried.
	patience = 5 * time.Second
	// defaultHitTimeout is short: a token past half its life is as good as any.
	defaultHitTimeout = time.Second
	// quiet is how long after a failure no newer token is asked for while there
	// is a good one.
	quiet = 5 * time.Second
	// firstRetry is the first pause before the issuer is tried once more.
	firstRetry = 250 * time.Millisecond
)

// What a caller may ask for: a token travels in HTTP headers. The issuer's bounds.
const (
	maxAudiences     = 100
	maxAudienceBytes = 4 << 10
)

// ErrAudience says that audiences are too many or too long.
var ErrAudience = fmt.Errorf("too many audiences: at most %d, of %d bytes in all", maxAudiences, maxAudienceBytes)

// errStopped: the cache ended.
var errStopped = errors.New("the agent is stopping")

// key is of an identity, the life that its entry gives tokens, and its audiences.
type key [sha256.Size]byte

// Cache keeps tokens, the most recently used. It is safe for concurrent use.
type Cache struct {
	cfg Config
	log *slog.Logger

	requests sync.WaitGroup
	mu       sync.Mutex // guards what follows, and all items
	stopped  bool
	items    map[key]*list.Element
	recent   list.List // of *item, the last used first
	flights  map[key]*flight
	backoffs backoffs
}

// item is a token that is kept.
type item struct {
	key     key
	token   jwtsvid.Token
	renewAt time.Time // by the wall clock, as the token's end is
	nextTry time.Time // after a failure; by the time that goes on evenly
}

// New returns an empty cache.
func New(cfg Config) *Cache {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.CacheHitTimeout == 0 {
		cfg.CacheHitTimeout = defaultHitTimeout
	}
	return &Cache{
		cfg: cfg, log: cfg.Log,
		items: make(map[key]*list.Element), flights: make(map[key]*flight), backoffs: make(backoffs),
	}
}

// Run ends the requests under way when ctx ends, and waits for them.
func (c *Cache) Run(ctx context.Context) error {
	<-ctx.Done()
	c.mu.Lock()
	c.stopped = true
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	c.requests.Wait()
	return ctx.Err()
}

// Len returns how many tokens are kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len()
}

// Apply drops tokens that nobody would take any more: those that have expired,
// and those of keys that the trust domain's bundle does not have.
func (c *Cache) Apply(own *jwtsvid.Bundle) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.items {
		it := e.Value.(*item)
		if !now.Before(it.token.ExpiresAt) || own == nil || !own.Has(it.token.KeyID) {
			c.drop(e)
		}
	}
}

func (c *Cache) drop(e *list.Element) {
	delete(c.items, e.Value.(*item).key)
	c.recent.Remove(e)
}

// put keeps a token; c.mu is held.
func (c *Cache) put(k key, token jwtsvid.Token, received time.Time) {
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
	life := token.ExpiresAt.Sub(received)
	if c.cfg.MaxSize < 0 || life <= 0 {
		return
	}
	it := &item{key: k, token: token, renewAt: received.Round(0).Add(life / 2)}
	c.items[k] = c.recent.PushFront(it)
	for c.recent.Len() > c.cfg.MaxSize {
		c.drop(c.recent.Back())
	}
}

// good returns the item of k if it has not expired, as used now; c.mu is held.
func (c *Cache) good(k key, now time.Time) *item {
	e, ok := c.items[k]
	if !ok {
		return nil
	}
	it := e.Value.(*item)
	if !now.Before(it.token.ExpiresAt) {
		c.drop(e)
		return nil
	}
	c.recent.MoveToFront(e)
	return it
}

// keyOf is the same for audiences in any order.
func keyOf(e registration.Entry, audience []string) (key, error) {
	sorted := slices.Sorted(slices.Values(audience))
	sorted = slices.Compact(sorted)
	size := 0
	for _, a := range sorted {
		size += len(a)
	}
	if len(sorted) > maxAudiences || size > maxAudienceBytes {
		return key{}, ErrAudience
	}
	h := sha256.New()
	var n [8]byte
	add := func(text string) {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	add(e.SPIFFEID.String())
	binary.BigEndian.PutUint64(n[:], uint64(e.JWTSVIDTTL))
	h.Write(n[:])
	for _, a := range sorted {
		add(a)
	}
	return key(h.Sum(nil)), nil
}
