package workloadattest

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"google.golang.org/grpc/codes"
	rpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

const (
	// maxCallsPerUser is how many calls one user may have open: two streams for
	// each connection that it may have.
	maxCallsPerUser = 2 * defaultMaxPerUser
	// maxCalls is that for all users but root together. An open stream takes the
	// agent some 12 KiB.
	maxCalls = 4 * maxCallsPerUser
)

// Limits bound what the users of a node can make an agent hold open, over all of
// its sockets: connections, and calls on these. Root is exempt.
type Limits struct{ *limits }

// NewLimits returns the limits of one agent. Log may be nil.
func NewLimits(log *slog.Logger) *Limits {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Limits{newLimits(log, 0)}
}

// Connections returns how many there are.
func (l *Limits) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Tap refuses a call too many, before anything is done for it: a connection has
// room for a thousand streams, and some can be held open by anyone, without any
// identity (health, reflection). It is a [tap.ServerInHandle], for a server with
// [Credentials].
func (l *Limits) Tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	caller, err := FromContext(ctx)
	if err != nil {
		return ctx, rpcstatus.Error(codes.Internal, err.Error())
	}
	if caller.uid == 0 {
		return ctx, nil
	}
	if err := l.begin(caller.uid); err != nil {
		if l.seldom("calls " + strconv.FormatUint(uint64(caller.uid), 10)) {
			l.log.Warn("call refused", "pid", caller.PID(), "reason", err)
		}
		return ctx, rpcstatus.Error(codes.ResourceExhausted, err.Error())
	}
	// gRPC ends the context with the call, whichever way that ends.
	context.AfterFunc(ctx, func() { l.end(caller.uid) })
	return ctx, nil
}

// begin counts a call of a user in, or says why not.
func (l *limits) begin(uid uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls[uid] >= maxCallsPerUser {
		return fmt.Errorf("user %d has %d calls open already, as many as one user may have", uid, maxCallsPerUser)
	}
	if l.allCalls >= maxCalls {
		return fmt.Errorf("%d calls are open, as many as all users may have", maxCalls)
	}
	l.calls[uid]++
	l.allCalls++
	return nil
}

func (l *limits) end(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allCalls--
	if l.calls[uid]--; l.calls[uid] == 0 {
		delete(l.calls, uid)
	}
}
