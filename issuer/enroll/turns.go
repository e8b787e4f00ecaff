package enroll

import (
	"context"
	"hash/maphash"
)

// turns lets those who share a name go one after the other; others do as well
// now and then.
type turns struct {
	seed  maphash.Seed
	slots [64]chan struct{}
}

func newTurns() *turns {
	t := &turns{seed: maphash.MakeSeed()}
	for i := range t.slots {
		t.slots[i] = make(chan struct{}, 1)
	}
	return t
}

// take waits for name's turn, which lasts until done is called.
func (t *turns) take(ctx context.Context, name string) (done func(), _ error) {
	slot := t.slots[maphash.String(t.seed, name)%uint64(len(t.slots))]
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
