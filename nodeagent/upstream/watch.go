package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Watch calls apply with what the issuer lets the agent know, and then with each
// change, whole and in order, until ctx ends. It waits for the agent to join and
// outlasts an issuer that is away. An issuer that has lanyard.changes.v1.Changes
// tells of changes by itself, in milliseconds; any other is asked at an interval,
// as spire-agent asks. It is called once.
func (c *Client) Watch(ctx context.Context, apply func(Update)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.joined:
	}
	w := newWatcher(c, apply)
	var posting sync.WaitGroup
	posting.Go(func() { w.poster.run(ctx) })
	defer posting.Wait()
	for {
		pause, err := w.step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		moved := c.moved.fired()
		if err == nil {
			moved = nil // it is a poll that waits for the next
		}
		if err := pauseUntil(ctx, pause, moved); err != nil {
			return err
		}
	}
}

// watcher is one [Client.Watch]. It is used by one goroutine.
type watcher struct {
	c       *Client
	apply   func(Update)
	poster  *poster
	reader  entryReader
	bundles bundles

	entries  syncer  // what polls have told; empty once something was pushed
	pollWait growing // after polls that failed

	// resume stands for what was handed on last, by an issuer that pushes, to the
	// agent held, as often as it began anew; nil: that came by a poll, or nothing
	// did.
	incoming incoming
	resume   []byte
	held     spiffeid.ID
	heldAnew int64
	pushWait growing // after streams that ended
	short    int     // streams in a row that did not last

	// noPush says that the issuer has no stream, or none that works: it is not
	// asked for one before there is another connection, or the time.
	noPush   bool
	connects int64
	pushAt   time.Time
	brokenBy growing

	failing int // attempts in a row
	outage  outage
}

func newWatcher(c *Client, apply func(Update)) *watcher {
	reader := entryReader{td: c.cfg.TrustDomain, log: c.log}
	return &watcher{
		c: c, apply: apply, reader: reader, poster: newPoster(c),
		entries:  syncer{reader: reader, getAll: c.cfg.UseSync != nil && !*c.cfg.UseSync},
		pollWait: growing{first: min(time.Second, c.cfg.SyncInterval), most: max(15*time.Second, c.cfg.SyncInterval)},
		pushWait: growing{first: 100 * time.Millisecond, most: 5 * time.Second},
		brokenBy: growing{first: time.Second, most: time.Minute},
	}
}

// step follows a stream until it ends, or polls once. It returns how long to wait
// before the next step.
func (w *watcher) step(ctx context.Context) (time.Duration, error) {
	if w.asksForPush() {
		err := w.push(ctx)
		switch {
		case ctx.Err() != nil:
			return 0, err
		case errors.Is(err, errNoPush):
		case w.failing == 0 && w.short < 3:
			// The stream had worked. Issuers end connections as they age.
			w.c.log.Debug("the stream of changes has ended", "issuer", w.c.issuers.current(), "reason", reason(err))
			w.failing++
			return spread(w.pushWait.next()), err
		default:
			return w.failed(err, &w.pushWait), err
		}
	}
	err := w.poll(ctx)
	switch {
	case ctx.Err() != nil:
		return 0, err
	case err != nil && w.failing == 0 && elsewhere(err):
		// Once is no outage: the connection was at its end.
		w.c.log.Debug("polling once more", "reason", reason(err))
		w.failing++
		return spread(min(100*time.Millisecond, w.c.cfg.SyncInterval)), err
	case err != nil:
		return w.failed(err, &w.pollWait), err
	}
	w.inSync(false)
	w.resume = nil
	w.pollWait.reset()
	return jitter(w.c.cfg.SyncInterval), nil
}

// failed takes note of an attempt that failed, and returns how long to wait after
// it.
func (w *watcher) failed(err error, wait *growing) time.Duration {
	next := wait.next()
	w.failing++
	w.c.attempted(false, err)
	if text := reason(err); w.outage.news(text) {
		w.c.log.Warn("cannot sync with the issuer: trying on", "issuer", w.c.issuers.current(), "reason", text, "for", w.outage.lasts().String())
	}
	return spread(next)
}

// inSync takes note that the agent is up to date.
func (w *watcher) inSync(push bool) {
	if !w.outage.since.IsZero() {
		w.c.log.Info("in sync with the issuer again", "issuer", w.c.issuers.current(), "after", w.outage.lasts().String())
	}
	w.failing, w.outage = 0, outage{}
	w.c.attempted(push, nil)
}

// outage is a time without an issuer. The zero value is ready.
type outage struct {
	since, told time.Time
	reason      string
}

// news reports whether to tell that it goes on: it does so for another reason, or
// was not told of for a minute.
func (o *outage) news(reason string) bool {
	if o.since.IsZero() {
		o.since = time.Now()
	}
	if reason == o.reason && time.Since(o.told) < time.Minute {
		return false
	}
	o.told, o.reason = time.Now(), reason
	return true
}

func (o *outage) lasts() time.Duration {
	if o.since.IsZero() {
		return 0
	}
	return time.Since(o.since).Round(time.Millisecond)
}

// hand hands on what changed. The bundles are used even where they can't be
// written down.
func (w *watcher) hand(ch change, b bundles) {
	w.bundles = b
	w.c.setBundle(b.own.x509.X509Authorities(), b.own.tainted)
	w.c.sequence.Store(b.own.sequence)
	w.apply(ch.update(b))
	w.poster.tell()
}

// errNoPush says that the issuer doesn't tell of changes by itself.
var errNoPush = errors.New("the issuer does not tell of changes by itself")

// asksForPush reports whether to ask for a stream now.
func (w *watcher) asksForPush() bool {
	if !w.noPush || w.c.links.connects.Load() != w.connects {
		return true
	}
	return !w.pushAt.IsZero() && !time.Now().Before(w.pushAt)
}

// withoutPush decides about an issuer that gave no stream, but is there: it is
// polled from now.
func (w *watcher) withoutPush(err error) error {
	w.noPush, w.connects, w.pushAt = true, w.c.links.connects.Load(), time.Time{}
	if status.Code(err) == codes.Unimplemented {
		w.brokenBy.reset()
		return errNoPush
	}
	next := w.brokenBy.next()
	w.pushAt = time.Now().Add(spread(next))
	w.c.log.Warn("the issuer's stream of changes does not work: polling meanwhile", "issuer", w.c.issuers.current(), "reason", reason(err), "retry_in", next.String())
	return errNoPush
}
