// Package tidy gives memory back to the system when the agent comes to rest. It
// does not bound what the agent uses, and leaves the collector's pace alone.
package tidy

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// look is how often it is looked at whether the agent rests.
	look = time.Second
	// rest is how much an agent at rest allocates between two looks, in bytes.
	rest = 256 << 10
	// worth is what has to be allocated since the last time to make it worth a
	// collection, in bytes, or as much as is in use if that is more: then the
	// runtime is about to collect by itself. An agent that polls its issuer about
	// 100,000 entries does not collect after each time.
	worth = 4 << 20
)

// Run gives memory back after bursts of work, until ctx ends. A start, an update
// of all entries, or a thousand SVIDs signed take several times what is kept of
// them. The runtime keeps that, and as much again, until the next collection,
// which an agent at rest hardly has, and returns it to the system over minutes.
func Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	h := newHeap()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !h.due(h.read()) {
				continue
			}
			runtime.GC() // what is in a sync.Pool survives one collection
			debug.FreeOSMemory()
			h.done(h.read())
		}
	}
}

// usage is what the runtime says.
type usage struct {
	allocated uint64 // bytes, since the start
	live      uint64 // bytes that the last collection has left
}

// heap knows when it is time.
type heap struct {
	samples []metrics.Sample
	last    uint64 // allocated at the last look
	tidied  uint64 // allocated the last time that it was time
}

func newHeap() *heap {
	return &heap{samples: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}}
}

func (h *heap) read() usage {
	metrics.Read(h.samples)
	return usage{h.samples[0].Value.Uint64(), h.samples[1].Value.Uint64()}
}

// due is asked at each look.
func (h *heap) due(u usage) bool {
	resting := u.allocated-h.last < rest
	h.last = u.allocated
	return resting && u.allocated-h.tidied >= max(worth, u.live)
}

func (h *heap) done(u usage) { h.last, h.tidied = u.allocated, u.allocated }
