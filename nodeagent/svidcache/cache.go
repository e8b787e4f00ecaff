package svidcache

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
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
// to be signed; the other methods are safe for concurrent use.
type Cache struct {
	cfg  Config
	log  *slog.Logger
	wake chan struct{} // asks Run to look again; holds one

	mu       sync.Mutex // guards what follows and all records, sets and groups
	synced   bool
	firstRun chan struct{} // closed when synced
	records  map[string]*record
	active   map[*record]struct{} // a superset of those that are to have an SVID
	index    index
	bundles  map[spiffeid.TrustDomain]derBundle
	jwt      map[spiffeid.TrustDomain]*jwtsvid.Bundle
	sets     map[string]*set
	groups   map[string]*group
	bulk     int // requests under way that nobody waits for
	urgent   int // requests under way that somebody waits for
}

// New returns an empty cache.
func New(cfg Config) *Cache {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Cache{
		cfg: cfg, log: cfg.Log,
		wake:     make(chan struct{}, 1),
		firstRun: make(chan struct{}),
		records:  make(map[string]*record),
		active:   make(map[*record]struct{}),
		index:    newIndex(),
		bundles:  make(map[spiffeid.TrustDomain]derBundle),
		sets:     make(map[string]*set),
		groups:   make(map[string]*group),
	}
}

// Synced is closed when the first state was applied.
func (c *Cache) Synced() <-chan struct{} { return c.firstRun }

// Apply takes the state that the issuer lets the agent know, and pushes what it
// changes to the streams concerned.
func (c *Cache) Apply(state upstream.Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	jwt, bundles := c.setJWT(state.JWT), c.setBundles(state)
	entries := c.setEntries(state)
	if !c.synced {
		c.synced = true
		close(c.firstRun)
		entries = true
	}
	if entries {
		for _, g := range c.groups {
			c.rematch(g)
		}
	}
	if entries || bundles || jwt {
		for _, s := range c.sets {
			c.refresh(s)
		}
	}
	c.prefetch()
	for r := range c.active {
		if r.unreachable { // the issuer is back
			r.unreachable, r.nextTry = false, time.Time{}
		}
	}
	c.kick()
}

// kick lets Run look again.
func (c *Cache) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// setBundles reports whether any bundle changed. One that did not keeps its
// encoding, by which answers are compared.
func (c *Cache) setBundles(state upstream.Update) bool {
	next := make(map[spiffeid.TrustDomain]derBundle, 1+len(state.Federated))
	add := func(b *x509bundle.Bundle) {
		if b == nil {
			return
		}
		td := b.TrustDomain()
		if old, ok := c.bundles[td]; ok && (old.bundle == b || old.bundle.Equal(b)) {
			next[td] = old
			return
		}
		var der []byte
		for _, cert := range b.X509Authorities() {
			der = append(der, cert.Raw...)
		}
		next[td] = derBundle{bundle: b, der: der}
	}
	for _, b := range state.Federated {
		add(b)
	}
	add(state.Bundle)
	changed := len(next) != len(c.bundles)
	for td, b := range next {
		changed = changed || c.bundles[td].bundle != b.bundle
	}
	c.bundles = next
	return changed
}

// setEntries reports whether any answer may change, or who gets it.
func (c *Cache) setEntries(u upstream.Update) bool {
	changed := false
	present := make(map[string]bool, len(u.Entries))
	for _, e := range u.Entries {
		if !e.SPIFFEID.MemberOf(c.cfg.TrustDomain) && e.Template.TrustDomain() != c.cfg.TrustDomain {
			c.log.Error("entry left out: not of this trust domain", "entry_id", e.ID, "spiffe_id", e.SPIFFEID)
			continue
		}
		present[e.ID] = true
		changed = c.setEntry(e) || changed
	}
	for _, id := range u.Removed {
		changed = c.removeEntry(id) || changed
	}
	if u.Whole {
		for id := range c.records {
			if !present[id] {
				changed = c.removeEntry(id) || changed
			}
		}
	}
	return changed
}

func (c *Cache) removeEntry(id string) bool {
	r, ok := c.records[id]
	if ok {
		delete(c.records, id)
		delete(c.active, r)
		c.index.remove(r)
	}
	return ok
}

func (c *Cache) setEntry(e registration.Entry) bool {
	r := c.records[e.ID]
	if r == nil {
		r = &record{entry: e, sets: make(map[*set]struct{})}
		c.records[e.ID] = r
		c.index.add(r)
		return true
	}
	old := r.entry
	answer := sameAnswer(old, e)
	if answer {
		r.entry = e
	} else {
		c.index.remove(r)
		r.entry = e
		c.index.add(r)
	}
	if r.isTemplate() || !old.Template.IsZero() {
		if answer = answer && sameCertificate(old, e); !answer {
			r.instances = nil // made anew for those who match
		}
		r.svid = nil
		return !answer
	}
	if !sameCertificate(old, e) {
		r.version++
		r.nextTry, r.fails = time.Time{}, 0
		if old.SPIFFEID != e.SPIFFEID {
			r.svid = nil // another identity: serve it no longer
		}
		r.resign = r.svid != nil
	}
	return !answer
}

// prefetch chooses entries, in the order of their IDs, up to the cache's size.
func (c *Cache) prefetch() {
	room := c.cfg.MaxSize - len(c.active)
	if room <= 0 {
		return
	}
	var rest []*record
	for _, r := range c.records {
		if !r.active() && !r.isTemplate() && !r.entry.DisableX509SVIDPrefetch && !r.entry.StoreSVID {
			rest = append(rest, r)
		}
	}
	slices.SortFunc(rest, func(a, b *record) int { return cmp.Compare(a.entry.ID, b.entry.ID) })
	for _, r := range rest[:min(room, len(rest))] {
		r.prefetch = true
		c.active[r] = struct{}{}
	}
}

// evict drops SVIDs that no stream needs, the longest unused first, until they
// are as many as the cache keeps.
func (c *Cache) evict() {
	var idle []*record
	for r := range c.active {
		if r.demand == 0 {
			idle = append(idle, r)
		}
	}
	over := min(len(c.active)-c.cfg.MaxSize, len(idle))
	if over <= 0 {
		return
	}
	slices.SortFunc(idle, func(a, b *record) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.entry.ID, b.entry.ID))
	})
	for _, r := range idle[:over] {
		r.svid, r.prefetch, r.resign = nil, false, false
		delete(c.active, r)
	}
}
