package upstream

import (
	"context"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
)

// stream is one call of lanyard.changes.v1.Changes.Watch.
type stream struct {
	link    *link
	svid    *x509svid.SVID
	resumed bool // it was asked for what changed since a token
	opened  time.Time
	// received has what comes, and the error that ends it.
	received chan received
	cancel   context.CancelFunc
	done     func()
	reading  sync.WaitGroup
}

type received struct {
	resp *changesv1.WatchResponse
	err  error
}

// close ends the stream. Calls of the same link go on.
func (s *stream) close() {
	s.cancel()
	s.reading.Wait()
	s.done()
}

func (s *stream) read(ctx context.Context, from changesv1.Changes_WatchClient) {
	for {
		resp, err := from.Recv()
		select {
		case s.received <- received{resp, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// open opens a stream and returns it with its first response, at the issuer in use
// or, where that isn't there, at another one.
func (w *watcher) open(ctx context.Context) (s *stream, first *changesv1.WatchResponse, err error) {
	err = w.c.round(ctx, func() (string, error) {
		svid, _ := w.c.id.current()
		if svid == nil {
			return "", errNoSVID // joining anew
		}
		addr := w.c.issuers.current()
		l, done, err := w.c.links.use(addr, usable(svid))
		if err != nil {
			return addr, err
		}
		if s, first, err = w.openOver(ctx, l, svid); err != nil {
			done()
			if ctx.Err() == nil {
				w.c.heard(l, err)
				err = l.explain(err)
				w.c.judge(svid, err)
			}
			return addr, err
		}
		s.done = done
		w.c.judge(svid, nil)
		return addr, nil
	})
	return s, first, err
}

func (w *watcher) openOver(ctx context.Context, l *link, svid *x509svid.SVID) (*stream, *changesv1.WatchResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	req := &changesv1.WatchRequest{IdTemplates: true}
	if w.held == svid.ID && w.heldAnew == w.c.anew.Load() {
		req.Resume = w.resume
	}
	from, err := changesv1.NewChangesClient(l.conn).Watch(ctx, req)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	s := &stream{link: l, svid: svid, resumed: req.Resume != nil, opened: time.Now(), received: make(chan received), cancel: cancel}
	s.reading.Go(func() { s.read(ctx, from) })
	timeout := time.NewTimer(w.c.patience())
	defer timeout.Stop()
	select {
	case got := <-s.received:
		err = got.err
		if err == nil {
			return s, got.resp, nil
		}
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = status.Error(codes.DeadlineExceeded, "the issuer gives no stream of changes, and no reason")
		w.c.links.drop(l)
	}
	cancel()
	s.reading.Wait()
	return nil, nil, err
}
