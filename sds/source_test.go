package sds

import (
	"context"
	"sync"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// scriptedSource answers every watch from what set or fail said last.
type scriptedSource struct {
	mu      sync.Mutex
	moved   *sync.Cond
	now     said
	turn    int
	active  map[*int]bool // the turn each watch has delivered
	watches int
}

type said struct {
	context *workload.X509Context
	err     error
}

func newSource() *scriptedSource {
	s := &scriptedSource{active: make(map[*int]bool)}
	s.moved = sync.NewCond(&s.mu)
	return s
}

func (s *scriptedSource) set(c *workload.X509Context) { s.put(said{context: c}) }
func (s *scriptedSource) fail(err error)              { s.put(said{err: err}) }

// put returns when every watch has delivered it.
func (s *scriptedSource) put(what said) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = what
	s.turn++
	s.moved.Broadcast()
	for s.behind() {
		s.moved.Wait()
	}
}

// asked returns how many watches there were.
func (s *scriptedSource) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches
}

func (s *scriptedSource) behind() bool {
	for turn := range s.active {
		if *turn < s.turn {
			return true
		}
	}
	return false
}

func (s *scriptedSource) WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.moved.Broadcast()
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moved.Broadcast()
	})()
	s.watches++
	var delivered int
	s.active[&delivered] = true
	defer delete(s.active, &delivered)
	for {
		what, turn := s.now, s.turn
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case delivered == turn:
			s.moved.Wait()
			continue
		case what.err != nil:
			return what.err
		}
		if what.context != nil {
			s.mu.Unlock()
			err := update(what.context)
			s.mu.Lock()
			if err != nil {
				return err
			}
		}
		delivered = turn
		s.moved.Broadcast()
	}
}
