package svidcache

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// errUnanswered is logged once for all it befell.
var errUnanswered = errors.New("the issuer did not answer")

// outcome is what became of an order.
type outcome struct {
	svid        *svid
	reason      error
	unreachable bool // reason is not about this entry
	clear       bool // the SVID there is does not hang from a tainted authority
	tainted     bool // the new one does
}

// sign has a batch signed and takes the answers.
func (c *Cache) sign(ctx context.Context, b batch) {
	outcomes := make([]outcome, len(b.orders))
	asked := make([]int, 0, len(b.orders)) // the places of those asked for
	for i, o := range b.orders {
		if o.suspect != nil && !hangsFrom(o.suspect, o.authorities) {
			outcomes[i].clear = true
		} else {
			asked = append(asked, i)
		}
	}
	if len(asked) > 0 {
		c.ask(ctx, b, asked, outcomes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.urgent {
		c.urgentRunning--
	} else {
		c.bulkRunning--
	}
	tainted := 0
	for i, o := range b.orders {
		c.settle(o, outcomes[i])
		if outcomes[i].tainted {
			tainted++
		}
	}
	if tainted > 0 {
		c.log.Warn("the issuer still signs with a tainted authority", "count", tainted, "retry_in", taintRetry.String())
	}
	c.kick()
}

// ask has the batch's orders at the places asked signed.
func (c *Cache) ask(ctx context.Context, b batch, asked []int, outcomes []outcome) {
	began := time.Now()
	reqs, err := c.requests(b, asked)
	var answers []upstream.Signed
	if err == nil {
		answers, err = c.cfg.Signer.SignX509SVIDs(ctx, reqs)
	}
	received := c.cfg.Now()
	authorities := c.taintedNow()
	refused := err
	for n, i := range asked {
		o, out := b.orders[i], &outcomes[i]
		b.yield()
		switch {
		case n >= len(answers):
			out.reason, out.unreachable = errUnanswered, true
			continue
		case answers[n].Err != nil:
			out.reason = answers[n].Err
		default:
			out.svid, out.reason = newSVID(o.id, o.key, answers[n].Chain, received, c.cfg.AvailabilityTarget)
		}
		if out.reason != nil && refused == nil {
			refused = out.reason
		}
		out.tainted = out.svid != nil && hangsFrom(out.svid, authorities)
	}
	if missing := len(asked) - len(answers); missing > 0 && ctx.Err() == nil {
		c.log.Warn("cannot get SVIDs signed", "count", missing, "reason", err)
	}
	if c.cfg.Signed != nil {
		c.cfg.Signed(len(asked), time.Since(began), refused)
	}
}

// requests makes a key for each order.
func (c *Cache) requests(b batch, asked []int) ([]upstream.CSR, error) {
	reqs := make([]upstream.CSR, len(asked))
	for n, i := range asked {
		b.yield()
		key, csr, err := newRequest(c.cfg.KeyType)
		if err != nil {
			return nil, err
		}
		b.orders[i].key = key
		reqs[n] = upstream.CSR{EntryID: b.orders[i].entryID, DER: csr}
	}
	return reqs, nil
}

// yield lets others have the processor between two keys that nobody waits for:
// by itself the runtime takes it away after 10 ms, at each step that a caller's
// own SVID takes.
func (b batch) yield() {
	if !b.urgent {
		runtime.Gosched()
	}
}

// settle takes the outcome of one order; c.mu is held.
func (c *Cache) settle(o order, out outcome) {
	r, l := o.record, o.record.live
	l.asked--
	l.busy = l.asked > 0
	if o.urgent {
		l.hurried = false
	}
	defer c.place(r)
	switch {
	case r.gone, r.spiffeID != o.id:
		return // the entry went, or is another identity now
	case l.svid != nil && l.svid != o.before:
		return // another order was faster: two would be two changes to its streams
	case out.clear:
		if l.svid == o.suspect {
			l.suspect = false
		}
		return
	case out.reason != nil:
		l.failed(c.cfg.Now(), c.since())
		l.reason = out.reason.Error()
		if l.unreachable = out.unreachable; l.unreachable {
			c.unreached[r] = struct{}{}
		} else if l.fails&(l.fails-1) == 0 { // the first time, the second, the fourth...
			c.log.Warn("SVID not signed", "entry_id", o.entryID, "spiffe_id", o.id, "reason", out.reason, "attempt", l.fails)
		}
		return
	case !r.active():
		return // evicted meanwhile: nothing would renew or drop it
	}
	if l.svid == nil {
		c.fresh()
	}
	c.version++
	l.svid, l.resign, l.due, l.suspect, l.lapsed = out.svid, l.version != o.version, false, false, false
	l.fails, l.nextTry, l.unreachable, l.reason = 0, 0, false, ""
	if out.tainted {
		// The issuer has not changed its authority yet: once more, later.
		l.suspect, l.nextTry = true, c.since()+taintRetry
	}
	c.log.Debug("SVID signed", "entry_id", o.entryID, "spiffe_id", o.id, "expires", out.svid.notAfter)
	for _, s := range l.sets {
		c.refresh(s)
	}
}

// fresh says that there is something worth keeping soon.
func (c *Cache) fresh() {
	c.version++
	nudge(c.news)
}
