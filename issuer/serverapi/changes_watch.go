package serverapi

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
)

// watch is one stream of Watch.
type watch struct {
	s         *ChangesService
	ctx       context.Context
	stream    responseSender
	caller    Caller
	conn      *connInfo // nil in tests without a connection
	templates bool
	follower  *registry.Follower

	// What the log says of it at the end.
	resumed            bool
	changes, responses int
}

type responseSender interface {
	Send(*changesv1.WatchResponse) error
}

// run tells the agent of changes until one of the two may or can no more.
func (w *watch) run() error {
	var age time.Duration
	if w.conn != nil {
		age = time.Since(w.conn.since)
	}
	end := time.NewTimer(w.s.pace.ends(age))
	defer end.Stop()
	beat := time.NewTimer(w.s.pace.nextBeat())
	defer beat.Stop()
	expiry := time.NewTimer(w.untilExpiry())
	defer expiry.Stop()
	speak := true            // the first response comes at once, if only to say that nothing has changed
	var gap <-chan time.Time // nil where it may speak
	for {
		spoken := false
		err := w.judge()
		if err == nil && gap == nil {
			spoken, err = w.tell(speak)
			speak = false
		}
		if err != nil {
			return err
		}
		if spoken {
			beat.Reset(w.s.pace.nextBeat())
			gap = time.After(w.s.pace.gap)
		}
		select {
		case <-w.follower.Woken():
		case <-gap:
			gap = nil
		case <-beat.C:
			speak = true
		case <-expiry.C:
			expiry.Reset(w.untilExpiry())
		case <-end.C:
			return statusError(codes.Unavailable, "this connection has served its time: call again", nil)
		case <-w.s.stopping:
			return statusError(codes.Unavailable, "the issuer is stopping: call again", nil)
		case <-w.ctx.Done():
			return status.FromContextError(w.ctx.Err()).Err()
		}
	}
}

// untilExpiry is how long it is until the caller's SVID has expired, on the
// issuer's clock. At each beat that is looked at again.
func (w *watch) untilExpiry() time.Duration {
	if w.caller.Cert == nil {
		return maxConnectionAge
	}
	return max(w.caller.Cert.NotAfter.Sub(w.s.deps.Now()), 0) + time.Millisecond
}

// judge judges the agent anew, as it would be for each call. That an agent which
// was served uses a newer SVID by now is how each renewal ends.
func (w *watch) judge() error {
	err := w.s.guard.authorize(w.ctx, changesv1.Changes_Watch_FullMethodName, w.caller)
	if err != nil && w.responses > 0 && deniedFor(err, types.PermissionDeniedDetails_AGENT_NOT_ACTIVE) {
		expected(w.ctx)
	}
	return err
}

func deniedFor(err error, reason types.PermissionDeniedDetails_Reason) bool {
	return slices.ContainsFunc(status.Convert(err).Details(), func(detail any) bool {
		d, ok := detail.(*types.PermissionDeniedDetails)
		return ok && d.GetReason() == reason
	})
}

// tell tells what has changed; with speak also that nothing has.
func (w *watch) tell(speak bool) (spoken bool, _ error) {
	d := w.follower.Next()
	if w.responses == 0 {
		w.resumed = !d.Reset
	}
	if d.Empty() && !speak {
		return false, nil
	}
	if !d.Empty() {
		w.changes++
	}
	token := resumeToken{run: w.s.deps.Store.Run(), holder: holderOf(w.caller.ID, w.templates), at: d.To}
	p := newPager(w.stream, d.Reset)
	if err := p.delta(d); err != nil {
		return false, err
	}
	err := p.finish(token.bytes())
	w.responses += p.sent
	if err != nil || w.conn == nil {
		return true, err
	}
	// Its certificate may hang from an authority that is gone since. It has been
	// told so, and comes back over a connection of today or not at all.
	if err := w.s.guard.source.verify(w.conn, w.s.deps.Now()); err != nil {
		return true, statusError(codes.Unavailable, "client certificate", err)
	}
	return true, nil
}
