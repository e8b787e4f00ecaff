package serverapi

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// guard decides who may call what, by the table of rules.
type guard struct {
	deps   Deps
	admins map[spiffeid.ID]struct{}
	source *source
	calls  atomic.Uint64 // of all listeners: the number of the last one
}

func newGuard(d Deps) *guard {
	g := &guard{deps: d, admins: make(map[spiffeid.ID]struct{}, len(d.AdminIDs)), source: newSource(d)}
	for _, id := range d.AdminIDs {
		g.admins[id] = struct{}{}
	}
	return g
}

// authorize returns nil if caller may call method. If not, it returns
// PermissionDenied with SPIRE's text and, where an active agent could have
// called, why the caller is none.
func (g *guard) authorize(ctx context.Context, method string, caller Caller) error {
	allow := rules[method].allow
	switch {
	case allow&callerAny != 0,
		allow&callerLocal != 0 && caller.Local,
		// An expired certificate on a connection that is still open gives no right.
		allow&callerAdmin != 0 && !g.expired(caller) && g.isAdmin(caller),
		allow&callerDownstream != 0 && !g.expired(caller) && g.isDownstream(caller):
		return nil
	}
	reason := types.PermissionDeniedDetails_UNKNOWN
	if allow&callerAgent != 0 && !caller.ID.IsZero() {
		var err error
		reason, err = g.checkAgent(ctx, caller)
		switch {
		case errors.Is(err, errNoAgent):
		case err != nil:
			return statusError(codes.Internal, "unable to look up agent information", err)
		default:
			return nil
		}
	}
	return denied(reason, denial(method))
}

// denial is SPIRE's text.
func denial(method string) string { return "authorization denied for method " + method }

// expired reports whether the caller's certificate was good once.
func (g *guard) expired(caller Caller) bool {
	return caller.Cert != nil && g.deps.Now().After(caller.Cert.NotAfter)
}

func (g *guard) isAdmin(caller Caller) bool {
	if _, ok := g.admins[caller.ID]; ok {
		return !g.reserved(caller)
	}
	return g.hasEntry(caller, func(e registration.Entry) bool { return e.Admin })
}

// reserved reports whether an ID template makes IDs such as that of the caller,
// who then may be any workload with the right label. No such template is made
// beside admin_ids that name the ID, but it may have been there before them.
func (g *guard) reserved(caller Caller) bool {
	entry, found := g.deps.Registry.TemplateOver(caller.ID)
	if found {
		g.deps.Log.Warn("no administrator: an ID template makes IDs such as this one of admin_ids; change one of them",
			"spiffe_id", caller.ID.String(), "entry_id", entry.ID, "template", entry.Template.String())
	}
	return found
}

func (g *guard) isDownstream(caller Caller) bool {
	return g.hasEntry(caller, func(e registration.Entry) bool { return e.Downstream })
}

// hasEntry reports whether an entry that gives the caller its SPIFFE ID, and has
// not expired, gives it that right too.
func (g *guard) hasEntry(caller Caller, right func(registration.Entry) bool) bool {
	return !caller.ID.IsZero() && slices.ContainsFunc(g.deps.Registry.EntriesBySPIFFEID(caller.ID), right)
}

var errNoAgent = errors.New("caller is not an active agent")

// checkAgent returns nil if the caller is an agent that may call: attested, not
// banned, with the SVID in use. The first call with a renewed SVID puts that in
// use, and ends the one before it, in the store, before the call is served. The
// error is errNoAgent, with the reason that the agent is to be told, or the
// store's.
func (g *guard) checkAgent(ctx context.Context, caller Caller) (types.PermissionDeniedDetails_Reason, error) {
	if g.expired(caller) {
		return types.PermissionDeniedDetails_AGENT_EXPIRED, errNoAgent
	}
	agent, ok := g.deps.Registry.Agent(caller.ID)
	serial := caller.Cert.SerialNumber.String()
	reason, err := judge(agent, ok, serial)
	if err != nil || agent.GetSerial() == serial {
		return reason, err
	}
	_, rev, err := g.deps.Store.UpdateAgent(ctx, caller.ID, func(a *storepb.Agent) error {
		var rejected error
		if reason, rejected = judge(a, true, serial); rejected != nil {
			return rejected
		}
		if a.GetNewSerial() == serial {
			a.Serial, a.NotAfter = a.GetNewSerial(), a.GetNewNotAfter()
			a.NewSerial, a.NewNotAfter = "", 0
		}
		return nil
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, errNoAgent
	case err != nil:
		return reason, err
	}
	return reason, g.deps.Registry.Wait(ctx, rev)
}

// judge says whether an agent with that record may call with the SVID of that
// serial, be it the one in use or the renewed one.
func judge(agent *storepb.Agent, known bool, serial string) (types.PermissionDeniedDetails_Reason, error) {
	switch {
	case !known:
		return types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, errNoAgent
	case enroll.Banned(agent):
		return types.PermissionDeniedDetails_AGENT_BANNED, errNoAgent
	case serial != agent.GetSerial() && serial != agent.GetNewSerial():
		return types.PermissionDeniedDetails_AGENT_NOT_ACTIVE, errNoAgent
	}
	return types.PermissionDeniedDetails_UNKNOWN, nil
}
