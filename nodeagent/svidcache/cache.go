package svidcache

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Signer has SVIDs signed by the issuer.
type Signer interface {
	// SignX509SVIDs answers in the order of reqs. It may answer only the first
	// of them, and then returns why not more. It is called by several
	// goroutines at once, and returns soon after ctx ends.
	SignX509SVIDs(ctx context.Context, reqs []upstream.CSR) ([]upstream.Signed, error)
}

// Config says whose SVIDs are kept and how many.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Signer      Signer
	// MaxSize is how many SVIDs are kept that no stream needs; 0 is 1000.
	MaxSize int
	// KeyType is one that [CheckKeyType] accepts.
	KeyType string
	// AvailabilityTarget is how long before its end an SVID is renewed, where it
	// lives for 12 h more than that; any other is at half its life. 0: all are.
	AvailabilityTarget time.Duration
	// Now is the wall clock; nil is the machine's.
	Now func() time.Time
	// Signed is told of each request for SVIDs: how many were asked for, and why
	// some could not be had. May be nil.
	Signed func(n int, took time.Duration, err error)
	// Log may be nil.
	Log *slog.Logger
}

const defaultMaxSize = 1000

// Cache keeps the SVIDs of the agent's entries. [Cache.Run] must run for SVIDs
// to be signed, and for more than 200 streams to be told of a change; the other
// methods are safe for concurrent use.
type Cache struct {
	cfg   Config
	log   *slog.Logger
	start time.Time     // what times since the start are of; has a monotonic reading
	wake  chan struct{} // asks Run to look again; holds one
	news  chan struct{} // tells of what is worth keeping; holds one

	mu       sync.Mutex // guards what follows and all records, sets and groups
	synced   bool
	restored bool          // what was kept is served
	expected int           // who is about to restore
	firstRun chan struct{} // closed when synced
	ready    bell          // rings when synced or restored, or no more expected
	records  map[string]*record
	parents  map[spiffeid.ID]*spiffeid.ID
	index    index
	audience audience
	queues
	unreached map[*record]struct{} // that the issuer did not answer for
	ended     map[*record]struct{} // entries that have ended by themselves
	mark      uint32               // counts whole updates
	version   uint64               // counts changes of what is worth keeping
	uses      uint64               // counts the times that an SVID fell out of use
	figures   struct{ active, pending, failing, expired, streams int }

	bundles        map[spiffeid.TrustDomain]derBundle
	jwt            map[spiffeid.TrustDomain]*jwtsvid.Bundle
	bundlesVersion uint64
	trusted        map[string]versionedTrust // by the domains
	all, own       bell
	tainted        tainted
	// spare are the SVIDs that were kept of instances of templates that nobody
	// has asked for since, by the instance's ID.
	spare map[string]*svid

	sets   map[string]*set
	groups map[string]*group
	pacing pacing

	bulkRunning   int // requests under way that nobody waits for
	urgentRunning int // requests under way that somebody waits for
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
	return &Cache{
		cfg: cfg, log: cfg.Log,
		start:     time.Now(),
		wake:      make(chan struct{}, 1),
		news:      make(chan struct{}, 1),
		firstRun:  make(chan struct{}),
		ready:     newBell(),
		records:   make(map[string]*record),
		parents:   make(map[spiffeid.ID]*spiffeid.ID),
		index:     make(index),
		audience:  make(audience),
		queues:    newQueues(),
		unreached: make(map[*record]struct{}),
		ended:     make(map[*record]struct{}),
		bundles:   make(map[spiffeid.TrustDomain]derBundle),
		trusted:   make(map[string]versionedTrust),
		spare:     make(map[string]*svid),
		all:       newBell(),
		own:       newBell(),
		sets:      make(map[string]*set),
		groups:    make(map[string]*group),
		pacing:    pacing{credit: atOnce, start: make(chan struct{}, 1)},
	}
}

// Synced is closed when the first update was applied.
func (c *Cache) Synced() <-chan struct{} { return c.firstRun }

// since is the time since the start. It goes on evenly whatever is done to the
// wall clock, and stands still while the machine is suspended.
func (c *Cache) since() time.Duration { return time.Since(c.start) }

// kick lets Run look again.
func (c *Cache) kick() { nudge(c.wake) }

func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
