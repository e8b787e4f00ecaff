package svidcache

import "cmp"

// queue is records in order, the first at hand: a binary heap in which each
// record knows its place, so that it can be moved when what it is ordered by has
// changed. All costs are logarithmic.
type queue struct {
	list []*record
	less func(a, b *record) bool
	// place is where the record has its place, from 1; 0 is none.
	place func(*record) *int32
}

func (q *queue) first() *record {
	if len(q.list) == 0 {
		return nil
	}
	return q.list[0]
}

func (q *queue) has(r *record) bool {
	at := q.place(r)
	return at != nil && *at != 0
}

// put has r in the queue, in its order now, or out of it.
func (q *queue) put(r *record, in bool) {
	switch has := q.has(r); {
	case in && !has:
		q.list = append(q.list, r)
		*q.place(r) = int32(len(q.list))
		q.up(len(q.list) - 1)
	case in:
		i := int(*q.place(r)) - 1
		if !q.down(i) {
			q.up(i)
		}
	case has:
		q.remove(int(*q.place(r)) - 1)
	}
}

func (q *queue) remove(i int) {
	last := len(q.list) - 1
	q.swap(i, last)
	*q.place(q.list[last]) = 0
	q.list[last] = nil
	q.list = q.list[:last]
	if i < last && !q.down(i) {
		q.up(i)
	}
	if cap(q.list) > 1024 && last < cap(q.list)/4 {
		q.list = append(make([]*record, 0, 2*last), q.list...)
	}
}

func (q *queue) swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	*q.place(q.list[i]), *q.place(q.list[j]) = int32(i+1), int32(j+1)
}

func (q *queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.less(q.list[i], q.list[parent]) {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

// down reports whether the record moved.
func (q *queue) down(i int) (moved bool) {
	for {
		child := 2*i + 1
		if child >= len(q.list) {
			return moved
		}
		if child+1 < len(q.list) && q.less(q.list[child+1], q.list[child]) {
			child++
		}
		if !q.less(q.list[child], q.list[i]) {
			return moved
		}
		q.swap(i, child)
		i, moved = child, true
	}
}

// The queues that a record with something going on may be in, by the place in
// live.places. Those of SVIDs' times go by the wall clock, as certificates do; those
// of tries by the time since the start, which no setting of a clock moves.
const (
	inRotations = iota // has an SVID that is not due yet: by when it is
	inExpiries         // has an SVID: by when that ends
	inUrgent           // has none, and somebody waits: by the next try
	inBulk             // is to be signed, and nobody waits: by the next try
	inIdle             // no stream needs its SVID: the longest unused first
	liveQueues
)

type queues struct {
	rotations, expiries, urgent, bulk, idle queue
	// waiting have no SVID and nobody asked for one: by ID.
	waiting queue
	// endings are entries that end at a time: by that.
	endings queue
}

func newQueues() queues {
	of := func(i int, less func(a, b *live) bool) queue {
		return queue{
			less: func(a, b *record) bool { return less(a.live, b.live) },
			place: func(r *record) *int32 {
				if r.live == nil {
					return nil
				}
				return &r.live.places[i]
			},
		}
	}
	return queues{
		rotations: of(inRotations, func(a, b *live) bool { return a.svid.rotateAt.Before(b.svid.rotateAt) }),
		expiries:  of(inExpiries, func(a, b *live) bool { return a.svid.notAfter.Before(b.svid.notAfter) }),
		urgent:    of(inUrgent, func(a, b *live) bool { return a.nextTry < b.nextTry }),
		bulk:      of(inBulk, sooner),
		idle:      of(inIdle, func(a, b *live) bool { return a.used < b.used }),
		waiting: queue{
			less:  func(a, b *record) bool { return a.id < b.id },
			place: func(r *record) *int32 { return &r.waiting },
		},
		endings: queue{
			less:  func(a, b *record) bool { return cmp.Less(a.more().expiresAt, b.more().expiresAt) },
			place: func(r *record) *int32 { return &r.ending },
		},
	}
}

// sooner orders what nobody waits for: of what may be tried now, SVIDs that
// are in use before those that would be nice to have, the first to end first.
func sooner(a, b *live) bool {
	switch {
	case a.nextTry != b.nextTry:
		return a.nextTry < b.nextTry
	case a.svid == nil || b.svid == nil:
		return a.svid != nil && b.svid == nil
	default:
		return a.svid.notAfter.Before(b.svid.notAfter)
	}
}
