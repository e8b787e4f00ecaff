package traffic

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Up makes the backend listen, again at the same address after Down.
func (t *Traffic) Up() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener != nil {
		return nil
	}
	l, err := net.Listen(t.network, t.addr)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	t.listener, t.addr = l, l.Addr().String()
	if n := len(t.downs); n > 0 {
		t.downs[n-1].to = time.Now()
	}
	t.running.Go(func() { t.accept(l) })
	return nil
}

// Down closes the backend's listener, and resets those of its connections that which picks; nil picks none.
func (t *Traffic) Down(which func(*Talk) bool) {
	t.mu.Lock()
	l := t.listener
	if t.listener = nil; l != nil {
		t.downs = append(t.downs, window{from: time.Now()})
	}
	t.mu.Unlock()
	if l != nil {
		l.Close()
	}
	if which == nil {
		return
	}
	for _, talk := range t.Talks() {
		talk.mu.Lock()
		back := talk.backend
		talk.mu.Unlock()
		if back != nil && which(talk) {
			talk.Excuse("the backend reset it")
			reset(back.conn)
		}
	}
}

func (t *Traffic) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		t.running.Go(func() { t.serve(c.(conn)) })
	}
}

// serve holds the backend's side of a conversation, which begins with its number.
func (t *Traffic) serve(c conn) {
	_ = c.SetDeadline(time.Now().Add(t.options.Limit))
	var id [8]byte
	_, err := io.ReadFull(c, id[:])
	t.mu.Lock()
	talk := t.talks[binary.BigEndian.Uint64(id[:])]
	if err != nil || talk == nil {
		t.nameless++
		t.mu.Unlock()
		c.Close()
		return
	}
	t.mu.Unlock()
	back := &side{conn: c, done: make(chan struct{})}
	talk.mu.Lock()
	twice := talk.backend != nil
	if !twice {
		talk.backend = back
		close(talk.there)
	}
	talk.mu.Unlock()
	if twice {
		t.mu.Lock()
		t.twice = append(t.twice, talk.ID)
		t.mu.Unlock()
		c.Close()
		return
	}
	back.run(talk.ID, toClient, toBackend, t.options.Every, t.stop)
}
