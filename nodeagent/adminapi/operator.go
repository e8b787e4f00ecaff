package adminapi

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// operators tells the node's operator from everyone else who can open the
// socket, such as delegates.
type operators struct {
	log *slog.Logger
	// self is the agent's effective user ID.
	self uint32
	quiet
}

func newOperators(log *slog.Logger) *operators {
	return &operators{log: log, self: uint32(os.Geteuid())}
}

// check returns nil for root and for the agent's own user, who could read its
// memory anyway. The socket's file mode alone does not decide: it must let
// delegates in where there are any.
func (o *operators) check(ctx context.Context, method string) error {
	caller, err := workloadattest.FromContext(ctx)
	if err != nil {
		o.log.Error("admin socket: caller not known", "method", method, "reason", err)
		return status.Error(codes.PermissionDenied, "the caller is not known")
	}
	if uid := caller.UID(); uid == 0 || uid == o.self {
		return nil
	}
	if o.now(time.Now()) {
		o.log.Warn("admin socket: caller is not the operator", "method", method, "pid", caller.PID(), "uid", caller.UID())
	}
	return status.Errorf(codes.PermissionDenied, "this is for root and the agent's own user (uid %d); you are uid %d", o.self, caller.UID())
}

// quiet lets one line through each second.
type quiet struct {
	mu   sync.Mutex
	last time.Time
}

func (q *quiet) now(t time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.Sub(q.last) < time.Second {
		return false
	}
	q.last = t
	return true
}
