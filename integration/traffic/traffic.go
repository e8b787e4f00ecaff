// Package traffic makes conversations whose every byte is known beforehand, between clients and a backend that live in
// the test, with whatever is under test between them. It tells which of them came through whole. It knows nothing of
// what carries them, and decides nothing about how they should have ended beyond this: a byte that arrives is the right
// one, and an end that looks regular comes after everything that was sent.
package traffic

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Options say what the conversations are like.
type Options struct {
	Listen string        // of the backend: HOST:PORT or unix:PATH; a free port of 127.0.0.1 if empty
	Every  time.Duration // the mean pause between two writes of one side; 50 ms if zero
	Limit  time.Duration // the longest a conversation may last; 2 minutes if zero
}

// Traffic is a backend and the conversations its clients hold with it. Both sides write when they like, in pieces of
// a byte to 128 KiB, until Finish.
type Traffic struct {
	options Options
	begun   time.Time
	stop    chan struct{}  // closed by Finish: everybody says goodbye
	running sync.WaitGroup // the backend and every conversation's sides

	mu       sync.Mutex
	listener net.Listener // nil while the backend is down
	addr     string       // network and address stay the same
	network  string
	talks    map[uint64]*Talk
	downs    []window // when the backend was not there; the last one may have no end
	nameless int      // connections to the backend that ended before they said whose they are
	twice    []uint64 // conversations that arrived a second time
	finished bool
}

// window is a span of time.
type window struct{ from, to time.Time }

// New starts the backend. Close ends what Finish did not.
func New(o Options) (*Traffic, error) {
	if o.Every == 0 {
		o.Every = 50 * time.Millisecond
	}
	if o.Limit == 0 {
		o.Limit = 2 * time.Minute
	}
	t := &Traffic{options: o, begun: time.Now(), stop: make(chan struct{}), talks: map[uint64]*Talk{}, network: "tcp", addr: o.Listen}
	switch path, unix := cutUnix(o.Listen); {
	case unix:
		t.network, t.addr = "unix", path
	case o.Listen == "":
		t.addr = "127.0.0.1:0"
	}
	return t, t.Up()
}

func cutUnix(addr string) (path string, ok bool) {
	const prefix = "unix:"
	if len(addr) < len(prefix) || addr[:len(prefix)] != prefix {
		return "", false
	}
	return addr[len(prefix):], true
}

// Target is the backend's address as a sidecar takes it.
func (t *Traffic) Target() string {
	if t.network == "unix" {
		return "unix:" + t.addr
	}
	return t.addr
}

// Open starts n conversations by way of addr, HOST:PORT or unix:PATH, a few at a time. It returns once each has arrived
// at the backend or has ended. The error is that of a dial.
func (t *Traffic) Open(ctx context.Context, addr string, n int) ([]*Talk, error) {
	const together = 16
	talks, errs := make([]*Talk, n), make([]error, n)
	turns := make(chan struct{}, together)
	var all sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			if talks[i], errs[i] = t.open(ctx, addr); errs[i] == nil {
				select {
				case <-talks[i].there:
				case <-talks[i].client.done:
				}
			}
			<-turns
		})
	}
	all.Wait()
	return talks, errors.Join(errs...)
}

// Talks are the conversations so far.
func (t *Traffic) Talks() []*Talk {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Talk, 0, len(t.talks))
	for _, talk := range t.talks {
		all = append(all, talk)
	}
	return all
}

// Finish makes everybody say goodbye, and returns when all conversations have ended, however they did, and the backend
// is gone.
func (t *Traffic) Finish() {
	t.mu.Lock()
	if !t.finished {
		t.finished = true
		close(t.stop)
	}
	t.mu.Unlock()
	for _, talk := range t.Talks() {
		<-talk.client.done
		talk.mu.Lock()
		back := talk.backend
		talk.mu.Unlock()
		if back != nil {
			<-back.done
		}
	}
	t.Down(nil)
	t.running.Wait()
}

// wasDown tells whether the backend was away at some time of a span.
func (t *Traffic) wasDown(from, to time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.downs {
		if w.from.Before(to) && (w.to.IsZero() || w.to.After(from)) {
			return true
		}
	}
	return false
}
