package svidcache

import (
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A group is all streams of callers with the same selectors, a set is the
// identities they are given. Groups whose selectors lead to the same entries
// share the set, and with it each answer. All fields are guarded by Cache.mu.
type group struct {
	key       string
	caller    Caller
	streams   int
	demand    int           // streams that need SVIDs, and not bundles alone
	set       *set          // nil: no entry matches
	changed   chan struct{} // closed and replaced when there may be news
}

type set struct {
	key     string
	records []*record // by entry ID
	groups  map[*group]struct{}
	demand  int     // sum of the groups'
	answer  *Answer // the last complete one; nil: none yet
	bundles *Bundles
	jwt     *JWTBundles
}

func setKey(records []*record) string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.entry.ID
	}
	return strings.Join(ids, "\x00")
}

// join returns the group of the caller, which is normal, with one stream more.
func (c *Cache) join(caller Caller, needsSVIDs bool) *group {
	key := caller.key()
	g := c.groups[key]
	if g == nil {
		g = &group{key: key, caller: caller, changed: make(chan struct{})}
		c.groups[key] = g
		c.rematch(g)
	}
	g.streams++
	if needsSVIDs {
		g.demand++
		c.addDemand(g.set, 1)
	}
	return g
}

// leave takes a stream out of its group.
func (c *Cache) leave(g *group, neededSVIDs bool) {
	g.streams--
	if neededSVIDs {
		g.demand--
		c.addDemand(g.set, -1)
	}
	if g.streams == 0 {
		delete(c.groups, g.key)
		c.detach(g)
	}
}

// rematch moves g to the set that its selectors lead to now.
func (c *Cache) rematch(g *group) {
	records := c.match(g.caller)
	if len(records) == 0 {
		if g.set != nil {
			c.detach(g)
			g.notify()
		}
		return
	}
	key := setKey(records)
	if g.set != nil && g.set.key == key && slices.Equal(g.set.records, records) {
		return
	}
	next := c.sets[key]
	if next == nil || !slices.Equal(next.records, records) {
		// The same IDs with other records: an entry was deleted and made anew.
		next = &set{key: key, records: records, groups: make(map[*group]struct{})}
		c.sets[key] = next
		for _, r := range records {
			next.file(r)
		}
		c.refresh(next)
	}
	// First in, then out: records in both stay in demand.
	next.groups[g] = struct{}{}
	c.addDemand(next, g.demand)
	c.detach(g)
	g.set = next
	g.notify()
}

// detach takes g out of its set, and drops a set that nobody is in.
func (c *Cache) detach(g *group) {
	s := g.set
	if s == nil {
		return
	}
	g.set = nil
	delete(s.groups, g)
	c.addDemand(s, -g.demand)
	if len(s.groups) > 0 {
		return
	}
	if c.sets[s.key] == s {
		delete(c.sets, s.key)
	}
	for _, r := range s.records {
		delete(r.sets, s)
		c.release(r)
	}
}

// addDemand counts streams that need the SVIDs of s, which may be nil.
func (c *Cache) addDemand(s *set, n int) {
	if s == nil || n == 0 {
		return
	}
	before := s.demand
	s.demand += n
	switch {
	case before == 0 && s.demand > 0:
		now := time.Now()
		for _, r := range s.records {
			r.demand++
			r.hurry(now)
			c.active[r] = struct{}{}
		}
		c.kick()
	case before > 0 && s.demand == 0:
		now := time.Now()
		for _, r := range s.records {
			r.demand--
			r.used = now
		}
		c.evict()
	}
}

// refresh makes the set's answer and bundles anew where they changed, and tells
// the streams. An answer waits for all its SVIDs: with one missing, another
// would become the default of its workload.
func (c *Cache) refresh(s *set) {
	var federated []spiffeid.TrustDomain
	identities := make([]identity, 0, len(s.records))
	now := time.Now()
	for _, r := range s.records {
		federated = append(federated, r.entry.FederatesWith...)
		if r.svid != nil && !r.svid.expired(now) {
			identities = append(identities, identity{svid: r.svid, hint: r.entry.Hint})
		}
	}
	news := s.dropForeign()
	if b := newBundles(c.cfg.TrustDomain, c.bundles, federated); !s.bundles.same(b) {
		s.bundles, news = b, true
	}
	if b := newJWTBundles(c.cfg.TrustDomain, c.jwt, federated); !s.jwt.same(b) {
		s.jwt, news = b, true
	}
	if len(identities) == len(s.records) && !s.answer.same(identities, s.bundles) {
		s.answer, news = newAnswer(identities, s.bundles), true
	}
	if !news {
		return
	}
	for g := range s.groups {
		g.notify()
	}
}

// dropForeign drops an answer with an SPIFFE ID that its entry no longer gives.
// Any other is good until the next one is complete.
func (s *set) dropForeign() bool {
	if s.answer == nil {
		return false
	}
	for i, id := range s.answer.identities {
		if id.svid.id != s.records[i].entry.SPIFFEID {
			s.answer = nil
			return true
		}
	}
	return false
}

func (g *group) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}
