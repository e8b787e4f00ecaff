package workloadattest

import (
	"context"
	"io"
	"sync"
)

// slice is how many bytes of a file are read before others have a turn: some
// 15 ms of work.
const slice = 16 << 20

// turns lets a few files be read at once, a slice at a time, and one of each user
// but root: whoever runs programs of a terabyte, which take no room on a disk where
// they are holes, keeps nobody else from being hashed.
type turns struct {
	slots chan struct{} // one a file that is read

	mu    sync.Mutex
	users map[uint32]*userTurn
}

// userTurn is of one user who has, or waits for, a turn.
type userTurn struct {
	turn chan struct{}
	n    int // who hold it or wait for it; guarded by turns.mu
}

func newTurns() turns {
	return turns{slots: make(chan struct{}, hashers), users: make(map[uint32]*userTurn)}
}

// begin waits for a turn; those of a user have it in the order they came.
func (t *turns) begin(ctx context.Context, uid uint32) (end func(), err error) {
	endUser := func() {}
	if uid != 0 {
		if endUser, err = t.beginUser(ctx, uid); err != nil {
			return nil, err
		}
	}
	if err := take(ctx, t.slots); err != nil {
		endUser()
		return nil, err
	}
	return func() {
		<-t.slots
		endUser()
	}, nil
}

func (t *turns) beginUser(ctx context.Context, uid uint32) (end func(), err error) {
	t.mu.Lock()
	u := t.users[uid]
	if u == nil {
		u = &userTurn{turn: make(chan struct{}, 1)}
		t.users[uid] = u
	}
	u.n++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if u.n--; u.n == 0 {
			delete(t.users, uid)
		}
	}
	if err := take(ctx, u.turn); err != nil {
		forget()
		return nil, err
	}
	return func() {
		<-u.turn
		forget()
	}, nil
}

// take puts one into a channel that has room for as many as may go at once.
func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turnReader reads for a user while it has a turn, and stops when ctx ends. It
// must be closed.
type turnReader struct {
	ctx   context.Context
	r     io.Reader
	turns *turns
	uid   uint32

	left int    // bytes until the turn ends
	end  func() // nil: it has none
}

func (r *turnReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.left <= 0 {
		r.close()
		end, err := r.turns.begin(r.ctx, r.uid)
		if err != nil {
			return 0, err
		}
		r.end, r.left = end, slice
	}
	n, err := r.r.Read(p)
	r.left -= n
	return n, err
}

func (r *turnReader) close() {
	if r.end != nil {
		r.end()
		r.end = nil
	}
}
