package adminapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/explain"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadapi/follow"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// delegates tells those who may have the identities of others from everyone else,
// by the identities that they have themselves. Being root is not enough.
type delegates struct {
	attestor   Attestor
	cache      *svidcache.Cache
	authorized []spiffeid.ID
	log        *slog.Logger
	quiet
}

// authorize returns nil for the caller of the RPC of ctx if one of its identities
// is an authorized delegate's. The texts are SPIRE's.
func (d *delegates) authorize(ctx context.Context) error {
	result, err := d.attestor.AttestContext(ctx)
	if err != nil {
		return d.notAttested(ctx, err)
	}
	caller := svidcache.Caller{Selectors: result.Selectors}
	entries, err := d.cache.Identities(caller)
	if errors.Is(err, svidcache.ErrNotSynced) {
		return status.Error(codes.Unavailable, err.Error())
	}
	for _, e := range entries {
		if slices.Contains(d.authorized, e.SPIFFEID) {
			return nil
		}
	}
	if err := result.Incomplete(); err != nil {
		return d.notAttested(ctx, err)
	}
	if len(entries) == 0 {
		d.refuse(ctx, result, "")
		return status.Error(codes.PermissionDenied, svidcache.ErrNoIdentity.Error())
	}
	d.refuse(ctx, result, fmt.Sprintf("its identity %s is not one of authorized_delegates", entries[0].SPIFFEID))
	return status.Error(codes.PermissionDenied, "caller not configured as an authorized delegate")
}

func (d *delegates) notAttested(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if d.now(time.Now()) {
		d.log.Warn("delegated identity: workload attestation failed", "reason", err)
	}
	return status.Error(codes.Unavailable, "workload attestation failed")
}

// refuse tells why in the log, once a second: it reads all entries. "": the verdict
// says it.
func (d *delegates) refuse(ctx context.Context, result workloadattest.Result, why string) {
	if !d.now(time.Now()) {
		return
	}
	c := explain.Case{Attested: result, Entries: d.cache.Explain(svidcache.Caller{Selectors: result.Selectors})}
	if why == "" {
		why = c.Verdict()
	}
	attrs := []any{"why", why, "selectors", explain.Join(c.Visible())}
	if caller, err := workloadattest.FromContext(ctx); err == nil {
		attrs = append(attrs, "pid", caller.PID(), "uid", caller.UID())
	}
	d.log.Warn("delegated identity refused", attrs...)
}

// maxSelectors bounds what a delegate may name; a process has some dozens.
const maxSelectors = 1000

// subject is whom a delegate asks for. One by pid is pinned, and must be closed.
type subject struct {
	who follow.Standing
	// process is nil for a subject by selectors.
	process *pinned
}

// subject returns whom a request names: by selectors, which the delegate vouches
// for, or by pid, and then the process is attested as if it called. The texts are
// SPIRE's.
func (d *delegates) subject(ctx context.Context, pid int32, selectors []*types.Selector) (*subject, error) {
	if (pid != 0) == (len(selectors) != 0) {
		return nil, status.Error(codes.InvalidArgument, "must provide either selectors or non-zero PID, but not both")
	}
	if pid == 0 {
		return bySelectors(selectors)
	}
	process, err := pin(int(pid))
	if err != nil {
		return nil, d.notAttested(ctx, err)
	}
	result, err := d.attestPinned(ctx, process)
	if err != nil {
		process.close()
		return nil, err
	}
	return &subject{who: follow.Found(result, registration.Selector{}), process: process}, nil
}

// attestPinned attests a process that is pinned. The error is a status.
func (d *delegates) attestPinned(ctx context.Context, process *pinned) (workloadattest.Result, error) {
	result, _, err := d.attestor.AttestPID(ctx, process.pid)
	if err == nil {
		// It lives still: so it is the one that was attested.
		err = process.check()
	}
	if err != nil {
		return workloadattest.Result{}, d.notAttested(ctx, err)
	}
	return result, nil
}

func bySelectors(selectors []*types.Selector) (*subject, error) {
	if len(selectors) > maxSelectors {
		return nil, status.Errorf(codes.InvalidArgument, "%d selectors: at most %d", len(selectors), maxSelectors)
	}
	parsed, err := registration.SelectorsFromProto(selectors)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "could not parse provided selectors")
	}
	return &subject{who: follow.Found(workloadattest.Result{Selectors: parsed}, registration.Selector{})}, nil
}

// withheld reports whether an entry's identity is never a delegate's to have: one
// who can administer the issuer, or be one.
func withheld(e registration.Entry) bool { return e.Admin || e.Downstream }
