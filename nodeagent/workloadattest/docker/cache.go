package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest/container"
)

const (
	// maxKnown bounds the cache, in containers.
	maxKnown = 4096
	// unknownFor is how long a container that a daemon did not know is not asked
	// for again: it is another runtime's.
	unknownFor = 30 * time.Second
)

// cache has what is known of containers, by ID.
type cache struct {
	mu      sync.Mutex
	records map[string]*record
}

// record is of one container. Who has its turn looks at the rest; the others wait,
// so that processes which start together have the daemon asked once.
type record struct {
	turn   chan struct{}
	learnt atomic.Bool // the daemon knew it

	// pid and key are of the container's first process: what was learnt holds
	// for as long as that lives. A container that is started again has another.
	pid       int
	key       workloadattest.Key
	selectors []registration.Selector

	unknownUntil time.Time
}

func newCache() *cache { return &cache{records: make(map[string]*record)} }

func (c *cache) record(id string) *record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[id]
	if r == nil {
		if len(c.records) >= maxKnown {
			c.shed()
		}
		r = &record{turn: make(chan struct{}, 1)}
		c.records[id] = r
	}
	return r
}

// shed makes room: first by what the daemon never knew, which anyone can make up
// who may make cgroups, and only then by the rest, which is asked for again.
func (c *cache) shed() {
	for id, r := range c.records {
		if !r.learnt.Load() {
			delete(c.records, id)
		}
	}
	if len(c.records) >= maxKnown {
		clear(c.records) // more than a node runs at once: most have ended
	}
}

func (r *record) lock(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *record) unlock() { <-r.turn }

// answer returns what is known, if anything is that still holds. The error is
// that p is not in the container.
func (r *record) answer(c container.Container, p *workloadattest.Process, now time.Time) ([]registration.Selector, bool, error) {
	if now.Before(r.unknownUntil) {
		return nil, true, nil
	}
	if r.pid == 0 {
		return nil, false, nil
	}
	first, err := workloadattest.Open(r.pid)
	if err != nil {
		return nil, false, nil // ended, say: the daemon knows better
	}
	defer first.Close()
	if first.Key() != r.key {
		return nil, false, nil
	}
	if err := container.Belongs(c, p, first); err != nil {
		return nil, true, err
	}
	return r.selectors, true, nil
}

func (r *record) learnUnknown(now time.Time) {
	r.pid, r.unknownUntil = 0, now.Add(unknownFor)
}

// learn keeps what the daemon said, if p is in the container that it speaks of.
func (r *record) learn(c container.Container, p *workloadattest.Process, info inspected) ([]registration.Selector, error) {
	first, err := workloadattest.Open(info.State.Pid)
	if err != nil {
		return nil, fmt.Errorf("first process of container %.12s: %w", c.ID, err)
	}
	defer first.Close()
	if err := container.Belongs(c, p, first); err != nil {
		if errors.Is(err, container.ErrNoPath) {
			err = fmt.Errorf("%w (is the agent in the daemon's PID namespace?)", err)
		}
		return nil, err
	}
	r.learnt.Store(true)
	r.pid, r.key, r.selectors, r.unknownUntil = info.State.Pid, first.Key(), info.selectors(), time.Time{}
	return r.selectors, nil
}
