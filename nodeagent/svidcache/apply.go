package svidcache

import (
	"cmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Apply takes what the issuer has told, and pushes what that changes to the
// streams concerned. It costs as much as the entries it names, and the callers
// that these concern; a whole update is compared with what there is.
func (c *Cache) Apply(u upstream.Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(u, &c.synced)
}

// apply sets known, which is synced or restored.
func (c *Cache) apply(u upstream.Update, known *bool) {
	ch := changes{groups: make(map[*group]struct{}), sets: make(map[*set]struct{})}
	bundles := c.setBundles(u)
	c.setTainted(u.Tainted)
	for _, e := range u.Entries {
		c.setEntry(e, &ch)
	}
	for _, id := range u.Removed {
		if r := c.records[id]; r != nil {
			c.removeEntry(r, &ch)
		}
	}
	if u.Whole {
		c.sweep(u.Entries, &ch)
	}
	first := !*known
	if first {
		*known = true
		if known == &c.synced {
			close(c.firstRun)
		}
		c.ready.ring()
		for _, g := range c.groups {
			ch.groups[g] = struct{}{}
		}
	}
	c.carry(ch, first)
	if bundles {
		for _, s := range c.sets {
			c.refresh(s)
		}
	}
	c.prefetch()
	c.reached()
	if bundles || first || ch.any {
		c.fresh()
	}
	c.kick()
}

// changes is what a change of entries concerns.
type changes struct {
	groups map[*group]struct{} // whose entries may be others now
	sets   map[*set]struct{}   // whose answers may be others now
	any    bool
}

// carry takes changes to the callers. Groups come first: the sets that they leave
// may be gone then.
func (c *Cache) carry(ch changes, atOnce bool) {
	for g := range ch.groups {
		c.rematch(g, atOnce)
	}
	for s := range ch.sets {
		if len(s.groups) > 0 {
			c.refresh(s)
		}
	}
}

// sweep removes what a whole update did not name.
func (c *Cache) sweep(named []registration.Entry, ch *changes) {
	c.mark++
	for _, e := range named {
		if r := c.records[e.ID]; r != nil {
			r.mark = c.mark
		}
	}
	for _, r := range c.records {
		if r.mark != c.mark {
			c.removeEntry(r, ch)
		}
	}
}

func (c *Cache) removeEntry(r *record, ch *changes) {
	ch.any = true
	c.audience.of(r.selectors, ch.groups)
	delete(c.records, r.id)
	delete(c.ended, r)
	c.index.remove(r)
	c.dropInstances(r)
	r.gone = true
	c.place(r)
}

func (c *Cache) setEntry(e registration.Entry, ch *changes) {
	r := c.records[e.ID]
	if !e.SPIFFEID.MemberOf(c.cfg.TrustDomain) && e.Template.TrustDomain() != c.cfg.TrustDomain {
		c.log.Error("entry left out: not of this trust domain", "entry_id", e.ID, "spiffe_id", e.SPIFFEID)
		if r != nil {
			c.removeEntry(r, ch)
		}
		return
	}
	if r != nil && r.is(e) && r.ended == r.expired(c.cfg.Now()) {
		return
	}
	ch.any = true
	next := c.fieldsOf(e)
	if r == nil {
		r = &record{fields: next}
		c.records[next.id] = r
		c.audience.of(next.selectors, ch.groups)
		c.index.add(r)
		c.setEnded(r, next.expired(c.cfg.Now()))
		return
	}
	c.replace(r, next, ch)
}

// replace gives an entry other fields, and its instances too.
func (c *Cache) replace(r *record, next *fields, ch *changes) {
	old, ended := r.fields, next.expired(c.cfg.Now())
	if old.isTemplate() && !old.sameCertificate(next) {
		c.dropSpare(r)
	}
	if !old.sameCallers(next) || ended != r.ended {
		c.audience.of(old.selectors, ch.groups)
		c.audience.of(next.selectors, ch.groups)
	}
	c.index.remove(r) // by selectors that may be others
	c.alter(r, next, ch)
	c.index.add(r)
	c.setEnded(r, ended)
	if old.more().template != next.more().template {
		c.dropInstances(r)
		return
	}
	for _, one := range r.instances() {
		c.alter(one, next.instance(one.spiffeID), ch)
	}
}

// setEnded says whether the entry's own end has passed. Those that have ended are
// remembered: a clock that is set back revives them.
func (c *Cache) setEnded(r *record, ended bool) {
	r.ended = ended
	if !ended {
		delete(c.ended, r)
		c.place(r)
		return
	}
	c.ended[r] = struct{}{}
	c.drop(r)
	for _, one := range r.instances() {
		c.drop(one)
	}
}

// alter gives a record other fields. What the SVID says decides whether it is
// signed anew, what answers say, whether they are made anew.
func (c *Cache) alter(r *record, next *fields, ch *changes) {
	old := r.fields
	r.fields = next
	l := r.live
	if l == nil {
		c.place(r)
		return
	}
	if !old.sameAnswer(next) {
		for _, s := range l.sets {
			ch.sets[s] = struct{}{}
		}
	}
	if !old.sameCertificate(next) {
		l.version++
		l.nextTry, l.fails, l.reason = 0, 0, ""
		if old.spiffeID != next.spiffeID {
			l.svid = nil // another identity: serve it no longer
			for _, s := range l.sets {
				ch.sets[s] = struct{}{}
			}
		}
		l.resign = l.svid != nil
	}
	if next.isTemplate() || next.more().storeSVID {
		c.drop(r) // is not served by itself any more
		return
	}
	c.place(r)
}

func byID(a, b *record) int { return cmp.Compare(a.id, b.id) }
