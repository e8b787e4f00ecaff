package svidcache

import (
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// record is one entry and what is going on with it. All fields are guarded by
// Cache.mu; what fields points to is immutable.
type record struct {
	*fields
	live *live // nil: nothing is going on

	next, prev *record // filed under the same selector
	pivot      int32   // the place, from 1, of that among its selectors; 0: not filed
	waiting    int32   // its places in these queues
	ending     int32
	mark       uint32 // the last whole update that named it
	gone       bool   // is the agent's no more
	ended      bool   // the entry's own end has passed
}

// live is what is known of a record that has an SVID, is to have one, or is in a
// caller's set.
type live struct {
	svid *svid // the last good one; nil: none yet, or expired
	sets []*set
	// template is what an instance was made from; nil for all others.
	template *record
	// instances of an ID template, those that a set has.
	instances map[spiffeid.ID]*record

	nextTry time.Duration // since the start; 0: now
	used    uint64        // counts the times that demand fell to 0
	reason  string        // of the last failure
	demand  int32         // the sets with streams that need this SVID
	version int32         // counts changes of what the certificate says
	fails   int32         // in a row
	places  [liveQueues]int32
	tally   tally

	prefetch bool // kept although nobody asked yet
	busy     bool // a request is under way
	asked    int8 // how many are: two where the first is not urgent, and somebody waits now
	hurried  bool // one of them is urgent
	due      bool // the SVID's time to be renewed has come
	// resign: what the certificate says has changed; the SVID serves until
	// the new one is there.
	resign bool
	// suspect: the SVID may hang from a tainted authority; it serves likewise.
	suspect bool
	// unreachable: the last failure was not about this entry.
	unreachable bool
	lapsed      bool // the SVID ended before it was renewed
}

// living returns what is going on with r, which is something from now on.
func (r *record) living() *live {
	if r.live == nil {
		r.live = new(live)
	}
	return r.live
}

// active reports whether the record is to have an SVID.
func (r *record) active() bool {
	l := r.live
	return l != nil && !r.gone && (l.demand > 0 || l.prefetch || l.svid != nil)
}

// prefetchable reports whether the entry is one that is signed before anyone asks.
func (r *record) prefetchable() bool {
	more := r.more()
	return !r.gone && !r.ended && !r.isTemplate() && !more.disablePrefetch && !more.storeSVID && !r.isInstance()
}

func (r *record) isInstance() bool { return r.live != nil && r.live.template != nil }

// place puts r where it belongs after whatever has changed: into the queues that
// are looked at when its turn comes, and into the figures. Each change of a
// record ends with it. What needs no place any more is forgotten.
func (c *Cache) place(r *record) {
	active := r.active()
	c.waiting.put(r, !active && r.prefetchable())
	c.endings.put(r, !r.gone && !r.ended && r.more().expiresAt != 0)
	l := r.live
	if l == nil {
		return
	}
	open := active && !l.busy
	sign := open && (l.svid == nil || l.due || l.resign || l.suspect || l.fails > 0)
	urgent := active && l.svid == nil && l.demand > 0 && !l.hurried
	// Out of all before into any: no queue may compare what has no SVID.
	c.expiries.put(r, active && l.svid != nil)
	c.rotations.put(r, open && !sign)
	c.urgent.put(r, urgent)
	c.bulk.put(r, sign && !urgent)
	c.idle.put(r, active && l.demand == 0)
	c.count(r, active)
	if !active && !l.busy && l.fails == 0 && len(l.sets) == 0 && l.template == nil && len(l.instances) == 0 {
		r.live = nil
	}
}

// tally is what a record adds to the figures.
type tally struct{ active, pending, failing, expired bool }

func (c *Cache) count(r *record, active bool) {
	l := r.live
	next := tally{
		active: active, pending: active && l.svid == nil,
		failing: active && l.fails > 0, expired: active && l.svid == nil && l.lapsed,
	}
	add := func(n *int, was, is bool) {
		if was {
			*n--
		}
		if is {
			*n++
		}
	}
	add(&c.figures.active, l.tally.active, next.active)
	add(&c.figures.pending, l.tally.pending, next.pending)
	add(&c.figures.failing, l.tally.failing, next.failing)
	add(&c.figures.expired, l.tally.expired, next.expired)
	l.tally = next
}

const (
	firstRetry   = 250 * time.Millisecond
	longestRetry = 30 * time.Second
	// longestWait is the longest retry while somebody is waiting.
	longestWait = 2 * time.Second
)

// failed puts the next try off, per identity, and no later than several tries
// before what there is expires. now is the wall clock, at the time since the start.
func (l *live) failed(now time.Time, at time.Duration) {
	l.fails++
	delay := firstRetry << min(l.fails-1, 10)
	most := longestRetry
	switch {
	case l.svid != nil:
		most = min(most, max(firstRetry, l.svid.notAfter.Sub(now)/4))
	case l.demand > 0:
		most = longestWait
	}
	delay = min(delay, most)
	l.nextTry = at + time.Duration(float64(delay)*(0.8+0.4*rand.Float64()))
}

// hurry shortens the wait after failures that nobody was waiting on: somebody is
// from now on.
func (l *live) hurry(at time.Duration) {
	if l.svid == nil {
		l.nextTry = min(l.nextTry, at+longestWait)
	}
}
