// Package poll owns the sidecar's sockets and the event loops that wait for
// them: accepting, dialling, waking whoever waits. A socket is an ordinary net.Conn
// for a goroutine, until a Handler takes it over; from then on it costs no
// goroutine. The package knows nothing of TLS, and not what the bytes are for.
//
// The runtime has an event loop of its own, and these sockets are never in it.
// Its price is a goroutine for each wait: a stack that a connection holds while
// idle, and a scheduling round for each event. Here a loop waits, is told of many
// sockets at once and calls their Handlers itself.
//
// A socket is added to its loop when it first has to wait, edge-triggered, and
// stays until it is closed, which needs no further call. It is not watched for
// room to write before a write found none. An event names a place in the loop's
// table and the place's generation, not a file descriptor: what comes for a socket
// that was closed meanwhile finds the generation changed, also when the descriptor
// is in use again.
package poll

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Poller needs; its zero value is usable.
type Config struct {
	// Loops is how many event loops there are; 0 means one for two processors: what
	// is left is for handshakes, and a loop that is told of much at once wastes less.
	Loops int
}

// Poller is a set of event loops.
type Poller struct {
	loops []*Loop
	next  atomic.Uint32 // the loop that the next socket gets
	open  atomic.Int64  // Conns and Listeners that are not closed
	start time.Time     // what the loops' clocks count from

	stop    chan struct{}
	ended   sync.WaitGroup
	closing sync.Once
}

// New starts the loops, and what gives memory back after many connections have
// closed. The error is the kernel's: too many open files.
func New(cfg Config) (*Poller, error) {
	n := cfg.Loops
	if n <= 0 {
		n = (runtime.GOMAXPROCS(0) + 1) / 2
	}
	p := &Poller{start: time.Now(), stop: make(chan struct{})}
	for range n {
		l, err := newLoop(p)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.loops = append(p.loops, l)
		p.ended.Go(l.run)
	}
	p.ended.Go(p.trim)
	return p, nil
}

// Close ends the loops and closes every socket that is left in one. A Handler is
// not told: whatever uses p has to end before.
func (p *Poller) Close() error {
	var errs []error
	p.closing.Do(func() {
		close(p.stop)
		for _, l := range p.loops {
			l.end()
		}
		p.ended.Wait()
		for _, l := range p.loops {
			for _, s := range l.left() {
				s.Close()
			}
			errs = append(errs, l.close())
		}
	})
	return errors.Join(errs...)
}

// Open is how many sockets of p are open, listening ones included.
func (p *Poller) Open() int64 { return p.open.Load() }

func (p *Poller) pick() *Loop { return p.loops[int(p.next.Add(1))%len(p.loops)] }
