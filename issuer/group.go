package issuer

import (
	"context"
	"fmt"
	"sync"
)

// group is the parts that run below the listeners. The first that fails ends
// the issuer by fail; stop ends them, in the reverse order of their start, and
// waits for each.
type group struct {
	ctx   context.Context
	fail  func(error)
	stops []func()
}

func newGroup(ctx context.Context, fail func(error)) *group {
	return &group{ctx: ctx, fail: fail}
}

func (g *group) run(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(g.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
	g.stops = append(g.stops, func() {
		cancel()
		done.Wait()
	})
}

// watch fails the issuer with an error that arrives on failed.
func (g *group) watch(failed <-chan error) {
	g.run("watch", func(ctx context.Context) error {
		select {
		case err := <-failed:
			g.fail(err)
		case <-ctx.Done():
		}
		return nil
	})
}

func (g *group) stop() {
	for i := len(g.stops) - 1; i >= 0; i-- {
		g.stops[i]()
	}
}
