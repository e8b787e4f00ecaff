package svidcache

import (
	"context"
	"crypto"
	"crypto/x509"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// maxBatch is how many SVIDs are asked for in one go: a fifth of what an issuer
	// takes. The first come back before the last are asked for, what somebody waits
	// for finds an issuer that is not busy for long, and a burst needs less memory.
	maxBatch = 100
	// maxBulk and maxUrgent bound the requests under way. What somebody waits
	// for never waits behind what nobody does.
	maxBulk   = 2
	maxUrgent = 8
	// together is how much sooner than due an SVID is renewed with others.
	together = 100 * time.Millisecond
	// longestSleep bounds how long a step of the clock goes unnoticed: timers
	// stop while the machine is suspended, certificates don't.
	longestSleep = 30 * time.Second
)

// Run has SVIDs signed and renewed, and streams told, until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.pace(ctx) })
	for {
		batches, next := c.plan()
		for _, b := range batches {
			parts.Go(func() { c.sign(ctx, b) })
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// batch is a request under way.
type batch struct {
	urgent bool
	orders []order
}

// order is one SVID to be signed, for the entry as it is now.
type order struct {
	record  *record
	entryID string
	id      spiffeid.ID
	version int32
	urgent  bool
	before  *svid // what there was when it was ordered; nil: none
	key     crypto.Signer
	// suspect, unless nil, is only to be replaced if one of authorities signed
	// it.
	suspect     *svid
	authorities []*x509.Certificate
}

// plan takes what is due into batches, marked busy, and returns when to look
// again if nothing happens before. It reads what is due, and nothing else.
func (c *Cache) plan() ([]batch, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, at := c.cfg.Now(), c.since()
	c.expire(now)
	c.endEntries(now)
	for {
		r := c.rotations.first()
		if r == nil || r.live.svid.rotateAt.Sub(now) > together {
			break
		}
		r.live.due = true
		c.place(r)
	}
	batches := c.take(nil, true, at)
	batches = c.take(batches, false, at)
	return batches, c.sleep(now, at)
}

// take adds batches of as many orders as may be under way.
func (c *Cache) take(batches []batch, urgent bool, at time.Duration) []batch {
	q, running, most := &c.bulk, &c.bulkRunning, maxBulk
	if urgent {
		q, running, most = &c.urgent, &c.urgentRunning, maxUrgent
	}
	for *running < most {
		b := batch{urgent: urgent}
		for len(b.orders) < maxBatch {
			r := q.first()
			if r == nil || r.live.nextTry > at {
				break
			}
			b.orders = append(b.orders, c.order(r, urgent))
			c.place(r)
		}
		if len(b.orders) == 0 {
			break
		}
		*running++
		batches = append(batches, b)
	}
	return batches
}

func (c *Cache) order(r *record, urgent bool) order {
	l := r.live
	l.asked++
	l.busy = true
	l.hurried = l.hurried || urgent
	o := order{record: r, entryID: r.id, id: r.spiffeID, version: l.version, urgent: urgent, before: l.svid}
	if l.suspect && !l.due && !l.resign && l.fails == 0 {
		o.suspect, o.authorities = l.svid, c.tainted.certs
	}
	return o
}

// sleep returns how long nothing is due.
func (c *Cache) sleep(now time.Time, at time.Duration) time.Duration {
	next := longestSleep
	if r := c.rotations.first(); r != nil {
		next = min(next, r.live.svid.rotateAt.Sub(now))
	}
	if r := c.expiries.first(); r != nil {
		next = min(next, r.live.svid.notAfter.Sub(now))
	}
	if r := c.urgent.first(); r != nil && c.urgentRunning < maxUrgent { // else the end of a request wakes us
		next = min(next, r.live.nextTry-at)
	}
	if r := c.bulk.first(); r != nil && c.bulkRunning < maxBulk {
		next = min(next, r.live.nextTry-at)
	}
	return max(next, time.Millisecond)
}

// expire lets go of SVIDs that could not be renewed in time. It tells of them once:
// where one has expired, others have.
func (c *Cache) expire(now time.Time) {
	var last *record
	n := 0
	for {
		r := c.expiries.first()
		if r == nil || !r.live.svid.expired(now) {
			break
		}
		last = r
		n++
		l := r.live
		l.svid, l.resign, l.due, l.suspect, l.lapsed = nil, false, false, false, true
		if l.demand > 0 {
			l.hurry(c.since())
		}
		c.place(r)
	}
	if n > 0 {
		c.log.Error("SVIDs expired before they could be renewed", "count", n, "spiffe_id", last.spiffeID, "entry_id", last.id)
	}
}

// endEntries takes identities from callers whose entries have ended, and gives
// them back if the clock was set back: while the issuer is away nobody else does.
func (c *Cache) endEntries(now time.Time) {
	ch := changes{groups: make(map[*group]struct{})}
	for r := range c.ended {
		if !r.expired(now) {
			c.audience.of(r.selectors, ch.groups)
			c.setEnded(r, false)
		}
	}
	for {
		r := c.endings.first()
		if r == nil || !r.expired(now) {
			break
		}
		c.audience.of(r.selectors, ch.groups)
		c.setEnded(r, true)
	}
	c.carry(ch, false)
}
