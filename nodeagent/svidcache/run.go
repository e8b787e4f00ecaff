package svidcache

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

const (
	// maxBatch is how many SVIDs are asked for in one go: the first come back
	// before the last are asked for.
	maxBatch = 500
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

// Run has SVIDs signed and renewed until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	for {
		batches, next := c.plan(time.Now())
		for _, b := range batches {
			requests.Go(func() { c.sign(ctx, b) })
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
	version int
	key     crypto.Signer
}

// plan takes what is due into batches, marked busy, and returns when to look
// again if nothing happens before.
func (c *Cache) plan(now time.Time) ([]batch, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var urgent, bulk []order
	next := longestSleep
	for r := range c.active {
		c.expire(r, now)
		if !r.active() {
			delete(c.active, r)
			continue
		}
		at, ok := r.due()
		if !ok {
			continue
		}
		full := c.bulk >= maxBulk
		if r.urgent() {
			full = c.urgent >= maxUrgent
		}
		if full {
			continue // the end of a request wakes us
		}
		if wait := at.Sub(now); wait > together || r.nextTry.After(now) {
			next = min(next, max(wait, time.Millisecond))
			continue
		}
		o := order{record: r, entryID: r.entry.ID, id: r.entry.SPIFFEID, version: r.version}
		if r.urgent() {
			urgent = append(urgent, o)
		} else {
			bulk = append(bulk, o)
		}
	}
	return append(c.take(urgent, true), c.take(bulk, false)...), next
}

// take makes batches of as many orders as may be under way.
func (c *Cache) take(orders []order, urgent bool) []batch {
	running, most := &c.bulk, maxBulk
	if urgent {
		running, most = &c.urgent, maxUrgent
	}
	var batches []batch
	for chunk := range slices.Chunk(orders, maxBatch) {
		if *running >= most {
			break
		}
		*running++
		for _, o := range chunk {
			o.record.busy = true
		}
		batches = append(batches, batch{urgent: urgent, orders: chunk})
	}
	return batches
}

// expire lets go of an SVID that could not be renewed in time.
func (c *Cache) expire(r *record, now time.Time) {
	if r.svid == nil || !r.svid.expired(now) {
		return
	}
	c.log.Error("SVID expired before it could be renewed", "spiffe_id", r.entry.SPIFFEID, "entry_id", r.entry.ID)
	r.svid, r.resign = nil, false
}

// sign has a batch signed and takes the answers.
func (c *Cache) sign(ctx context.Context, b batch) {
	reqs, err := c.requests(b.orders)
	var answers []upstream.Signed
	if err == nil {
		answers, err = c.cfg.Signer.SignX509SVIDs(ctx, reqs)
	}
	received := time.Now()
	svids := make([]*svid, len(b.orders))
	reasons := make([]error, len(b.orders))
	for i, o := range b.orders {
		switch {
		case i >= len(answers):
			reasons[i] = errUnanswered
		case answers[i].Err != nil:
			reasons[i] = answers[i].Err
		default:
			svids[i], reasons[i] = newSVID(o.id, o.key, answers[i].Chain, received)
		}
	}
	if missing := len(b.orders) - len(answers); missing > 0 && ctx.Err() == nil {
		c.log.Warn("cannot get SVIDs signed", "count", missing, "reason", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.urgent {
		c.urgent--
	} else {
		c.bulk--
	}
	for i, o := range b.orders {
		c.settle(o, svids[i], reasons[i], i >= len(answers))
	}
	c.kick()
}

// errUnanswered is logged once for all it befell.
var errUnanswered = errors.New("the issuer did not answer")

// requests makes a key for each order.
func (c *Cache) requests(orders []order) ([]upstream.CSR, error) {
	reqs := make([]upstream.CSR, len(orders))
	for i := range orders {
		key, csr, err := newRequest(c.cfg.KeyType)
		if err != nil {
			return nil, err
		}
		orders[i].key = key
		reqs[i] = upstream.CSR{EntryID: orders[i].entryID, DER: csr}
	}
	return reqs, nil
}

// settle takes the outcome of one order; c.mu is held.
func (c *Cache) settle(o order, s *svid, reason error, unreachable bool) {
	r := o.record
	r.busy = false
	switch {
	case !c.holds(r), r.entry.SPIFFEID != o.id:
		return // the entry went, or is another identity now
	case reason != nil:
		r.failed(time.Now())
		r.unreachable = unreachable
		if !unreachable {
			c.log.Warn("SVID not signed", "entry_id", o.entryID, "spiffe_id", o.id, "reason", reason, "attempt", r.fails)
		}
		return
	}
	if _, kept := c.active[r]; !kept {
		return // evicted meanwhile: nothing would renew or drop it
	}
	r.svid, r.resign = s, r.version != o.version
	r.fails, r.nextTry, r.unreachable = 0, time.Time{}, false
	c.log.Debug("SVID signed", "entry_id", o.entryID, "spiffe_id", o.id, "expires", s.notAfter)
	for s := range r.sets {
		c.refresh(s)
	}
}
