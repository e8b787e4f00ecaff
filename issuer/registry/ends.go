package registry

import (
	"cmp"
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"
)

// nap is how long expiry may be waited for without a look at the clock, which
// can be set, and goes on while timers of a machine that sleeps do not.
const nap = 10 * time.Second

// endHeap implements [heap.Interface].
type endHeap []*node

func (h endHeap) Len() int           { return len(h) }
func (h endHeap) Less(i, j int) bool { return h[i].end() < h[j].end() }
func (h endHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *endHeap) Push(n any)        { *h = append(*h, n.(*node)) }
func (h *endHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// end is the second of Unix time in which the entry expires.
func (n *node) end() int64 { return n.rest.expiresAt.Unix() }

// awaitEnd files n, which has an expiry, in ends. What is there in vain is cleared
// out when it is most.
func (x *index) awaitEnd(n *node) {
	if len(x.ends) > 2*len(x.expiring)+64 {
		x.sortEnds()
		return
	}
	heap.Push((*endHeap)(&x.ends), n)
}

// sortEnds makes ends anew.
func (x *index) sortEnds() {
	x.ends = slices.SortedFunc(maps.Values(x.expiring), func(a, b *node) int { return cmp.Compare(a.end(), b.end()) })
}

// nextEnd returns when the next entry expires, in seconds of Unix time; false if
// none does.
func (x *index) nextEnd() (int64, bool) {
	for len(x.ends) > 0 && x.expiring[x.ends[0].id] != x.ends[0] {
		heap.Pop((*endHeap)(&x.ends))
	}
	if len(x.ends) == 0 {
		return 0, false
	}
	return x.ends[0].end(), true
}

// endBy takes the entries off ends that expire by the second.
func (x *index) endBy(second int64) (ended []*node) {
	for {
		end, ok := x.nextEnd()
		if !ok || end > second {
			return ended
		}
		ended = append(ended, heap.Pop((*endHeap)(&x.ends)).(*node))
	}
}

// pass lets the time go on, for followers, and tells those that lose an entry by
// it; where the clock was set back, those that have it again. mu is held.
func (r *Registry) pass(now int64) {
	m := marker{r: r}
	was := r.asOf
	if now < was {
		r.asOf = now
		for _, n := range r.idx.expiring {
			if !n.expiredAt(now) && n.expiredAt(was) {
				r.idx.awaitEnd(n)
				m.came(n, true)
			}
		}
		return
	}
	for _, n := range r.idx.endBy(now) {
		if !n.expiredAt(was) {
			m.left(n, true)
		}
		r.lastEnd = max(r.lastEnd, n.end())
	}
	r.asOf = now
}

// endedBetween reports whether an entry may have expired after the one second, by
// the other.
func (r *Registry) endedBetween(from, to int64) bool {
	return from != to && len(r.idx.expiring) > 0 && (from > to || from < r.lastEnd)
}

// clock calls pass when an entry expires, until ctx ends.
func (r *Registry) clock(ctx context.Context) {
	timer := time.NewTimer(nap)
	defer timer.Stop()
	for {
		if wait, ok := r.untilEnd(); ok {
			timer.Reset(min(wait, nap))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-r.sooner:
			continue
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		r.pass(r.store.Now().Unix())
		r.mu.Unlock()
	}
}

// untilEnd returns how long it is until an entry expires; false if none does.
func (r *Registry) untilEnd() (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.idx.nextEnd()
	r.awaited = end
	return max(0, time.Unix(end, 0).Sub(r.store.Now())), ok
}

// hasten has the clock look again where an entry expires sooner than it waits
// for. mu is held.
func (r *Registry) hasten() {
	if end, ok := r.idx.nextEnd(); ok && (r.awaited == 0 || end < r.awaited) {
		select {
		case r.sooner <- struct{}{}:
		default:
		}
	}
}
