package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stable is how long a stream must have lasted for the next to be opened without
// more ado.
const stable = 10 * time.Second

// brokenError says that an issuer's stream makes no sense.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return "protocol violated by the issuer: " + e.text }

func broken(format string, args ...any) error { return &brokenError{fmt.Sprintf(format, args...)} }

// push follows the issuer's changes on streams, one after the other where the
// agent's SVID or the issuer in use becomes another, until one ends. It is errNoPush
// where the issuer has none.
func (w *watcher) push(ctx context.Context) error {
	s, err := w.begin(ctx)
	if err != nil {
		return w.classify(err)
	}
	w.noPush, w.pushAt = false, time.Time{}
	for {
		next, err := w.follow(ctx, s)
		s.close()
		if next == nil {
			w.short++
			if time.Since(s.opened) > stable {
				w.short = 0
				w.pushWait.reset()
				w.brokenBy.reset()
			}
			return w.ended(ctx, s, err)
		}
		s = next
	}
}

// begin opens a stream and takes its first response.
func (w *watcher) begin(ctx context.Context) (*stream, error) {
	s, first, err := w.open(ctx)
	if err != nil {
		return nil, err
	}
	w.incoming = newIncoming(!s.resumed)
	if err := w.take(s, first); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// classify tells an issuer that isn't there, or refuses the agent, from one that
// has no stream that works.
func (w *watcher) classify(err error) error {
	if errors.Is(err, errNoSVID) || elsewhere(err) {
		return err
	}
	if _, denied := denialReason(err); denied {
		return err
	}
	if status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated {
		if svid, _ := w.c.id.current(); usable(svid) == nil {
			return err
		}
	}
	return w.withoutPush(err)
}

// ended tells why a stream has.
func (w *watcher) ended(ctx context.Context, s *stream, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.c.judge(s.svid, err)
	if _, nonsense := errors.AsType[*brokenError](err); nonsense {
		return w.withoutPush(err)
	}
	return err
}

// follow takes what comes on s until it ends, or until another stream has taken
// its place, as calls go as another SVID, or to another issuer, from now. The new
// one begins where the old one is, which is read no more while it is opened, and is
// there still if that fails.
func (w *watcher) follow(ctx context.Context, s *stream) (next *stream, err error) {
	heard := time.Now().Round(0) // wall clock: a machine that slept has lost its peers
	check := time.NewTicker(max(w.c.limits.silence/15, time.Millisecond))
	defer check.Stop()
	retry := growing{first: 500 * time.Millisecond, most: 30 * time.Second}
	var notBefore time.Time
	for {
		moved := w.c.moved.fired()
		if w.outdated(s) && !time.Now().Before(notBefore) {
			next, err = w.begin(ctx)
			if _, nonsense := errors.AsType[*brokenError](err); err == nil || nonsense {
				return next, err
			}
			w.c.log.Debug("the stream of changes stays where it is", "issuer", s.link.addr, "reason", reason(err))
			notBefore = time.Now().Add(spread(retry.next()))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case got := <-s.received:
			if got.err != nil {
				return nil, s.link.explain(got.err)
			}
			heard = time.Now().Round(0)
			if err := w.take(s, got.resp); err != nil {
				return nil, err
			}
		case <-check.C:
			if err := w.overdue(ctx, s, heard); err != nil {
				return nil, err
			}
		case <-moved:
		}
	}
}

// outdated reports whether calls go as another SVID, or to another issuer, than s.
func (w *watcher) outdated(s *stream) bool {
	svid, _ := w.c.id.current()
	return svid != nil && (s.svid != svid || s.link.addr != w.c.issuers.current())
}

// overdue is an error where the issuer has said nothing for too long, or doesn't
// come to an end.
func (w *watcher) overdue(ctx context.Context, s *stream, heard time.Time) error {
	if silent := time.Now().Round(0).Sub(heard); silent > w.c.limits.silence {
		err := status.Errorf(codes.Unavailable, "nothing was heard of the issuer for %s", silent.Round(time.Second))
		w.c.links.drop(s.link)
		w.c.leave(ctx, s.link.addr, err)
		return err
	}
	if w.incoming.begun() && time.Since(w.incoming.since) > w.c.limits.changeTime {
		return broken("a change is not complete after %s", w.c.limits.changeTime)
	}
	return nil
}
