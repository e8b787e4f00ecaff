package svidcache

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A group is all streams of callers with the same selectors, a set is the
// identities they are given. Groups whose selectors lead to the same entries
// share the set, and with it each answer. All fields are guarded by Cache.mu.
type group struct {
	key     string
	caller  Caller // normal
	demand  int    // streams that need SVIDs, and not bundles alone
	set     *set   // nil: no entry matches
	cohorts []*cohort
}

type set struct {
	key     string
	records []*record // by entry ID
	groups  map[*group]struct{}
	demand  int     // sum of the groups'
	answer  *Answer // the last complete one; nil: none yet
	trust   *trust
}

func setKey(records []*record) string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.id
	}
	return strings.Join(ids, "\x00")
}

// match returns the records of a caller, which is normal.
func (c *Cache) match(caller Caller) []*record { return c.index.match(caller, c.expand) }

// join returns a cohort of the group of the caller, which is normal, with one
// stream more.
func (c *Cache) join(caller Caller, needsSVIDs bool) *cohort {
	key := caller.key()
	g := c.groups[key]
	if g == nil {
		g = &group{key: key, caller: caller}
		c.groups[key] = g
		c.audience.add(g)
		c.rematch(g, false)
	}
	if needsSVIDs {
		g.demand++
		c.addDemand(g.set, 1)
	}
	c.figures.streams++
	return g.admit()
}

// leave takes a stream out of its group.
func (c *Cache) leave(co *cohort, neededSVIDs bool) {
	g := co.group
	c.figures.streams--
	if neededSVIDs {
		g.demand--
		c.addDemand(g.set, -1)
	}
	if g.dismiss(co); len(g.cohorts) == 0 {
		delete(c.groups, g.key)
		c.audience.remove(g)
		c.detach(g)
	}
}

// rematch moves g to the set that its selectors lead to now. Streams that lose
// their identity are told at once; all are if atOnce.
func (c *Cache) rematch(g *group, atOnce bool) {
	records := c.match(g.caller)
	if len(records) == 0 {
		if g.set != nil {
			c.detach(g)
			atOnce = true
		}
		if atOnce {
			c.tell(g, true)
		}
		return
	}
	key := setKey(records)
	if g.set != nil && g.set.key == key && slices.Equal(g.set.records, records) {
		if atOnce {
			c.tell(g, true)
		}
		return
	}
	next := c.sets[key]
	if next == nil || !slices.Equal(next.records, records) {
		// The same IDs with other records: an entry was deleted and made anew.
		next = &set{key: key, records: records, groups: make(map[*group]struct{})}
		c.sets[key] = next
		for _, r := range records {
			c.file(next, r)
		}
		c.refresh(next)
	}
	// First in, then out: records in both stay in demand.
	next.groups[g] = struct{}{}
	c.addDemand(next, g.demand)
	c.detach(g)
	g.set = next
	c.tell(g, atOnce)
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
		l := r.live
		l.sets = slices.DeleteFunc(l.sets, func(other *set) bool { return other == s })
		c.release(r)
		c.place(r)
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
		at := c.since()
		for _, r := range s.records {
			r.live.demand++
			r.live.hurry(at)
			c.place(r)
		}
		c.kick()
	case before > 0 && s.demand == 0:
		for _, r := range s.records {
			l := r.live
			if l.demand--; l.demand == 0 {
				c.uses++
				l.used = c.uses
			}
			c.place(r)
		}
		c.evict()
	}
}

// refresh makes the set's answer and bundles anew where they changed, and tells
// the streams. An answer waits for all its SVIDs: with one missing, another
// would become the default of its workload.
func (c *Cache) refresh(s *set) {
	identities := make([]identity, 0, len(s.records))
	var federated []spiffeid.TrustDomain
	now := c.cfg.Now()
	for _, r := range s.records {
		federated = append(federated, r.more().federatesWith...)
		if l := r.live; l.svid != nil && !l.svid.expired(now) {
			identities = append(identities, identity{svid: l.svid, fields: r.fields})
		}
	}
	// Who is told that what it has is another's, and who has waited for the
	// first answer, is told at once; news that many have is spread.
	atOnce := s.dropForeign()
	news := atOnce
	if t := c.trusts(federated).after(s.trust); t != s.trust {
		s.trust, news = t, true
	}
	if len(identities) == len(s.records) && !s.answer.same(identities, s.trust.x509) {
		atOnce = atOnce || s.answer == nil
		s.answer, news = newAnswer(identities, s.trust.x509), true
	}
	if !news {
		return
	}
	for g := range s.groups {
		c.tell(g, atOnce)
	}
}

// dropForeign drops an answer with an SPIFFE ID that its entry no longer gives.
// Any other is good until the next one is complete.
func (s *set) dropForeign() bool {
	if s.answer == nil {
		return false
	}
	for i, id := range s.answer.identities {
		if id.svid.id != s.records[i].spiffeID {
			s.answer = nil
			return true
		}
	}
	return false
}
