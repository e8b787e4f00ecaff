package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Errors of what is asked of the authorities by hand. Each is wrapped by one
// whose text is SPIRE's in full: answer with err.Error() as it is, and with
// Internal what wraps none of them.
var (
	ErrAuthorityID    = errors.New("authority ID cannot be used for that") // InvalidArgument
	ErrAuthorityState = errors.New("authority is not in the right state")  // Internal
	ErrUpstream       = errors.New("not with this upstream authority")     // FailedPrecondition
	ErrJWTDisabled    = errors.New("JWT functionality is disabled")        // Unimplemented
)

// refusal is an error with SPIRE's text and our kind.
type refusal struct {
	kind error
	text string
}

func (e *refusal) Error() string { return e.text }
func (e *refusal) Unwrap() error { return e.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind: kind, text: fmt.Sprintf(format, args...)}
}

// AuthorityState is what there is to say of one authority.
type AuthorityState struct {
	ID string
	// ExpiresAt is 1970 where it is not known: of another issuer's authority.
	ExpiresAt time.Time
	// UpstreamSubjectKeyID is lower-case hex, of the root; empty without an
	// upstream authority.
	UpstreamSubjectKeyID string
}

// States are the authority that signs, and the one that will, or did before.
// Active is never nil; at most one of the others is there.
type States struct {
	Active, Prepared, Old *AuthorityState
}

// X509State tells the state of the X.509 authorities. The error wraps
// [ErrNotReady] before the first one.
func (a *Authority) X509State() (States, error) { return a.states(kindX509) }

// JWTState tells the state of the JWT authorities. The error wraps
// [ErrNotReady] before the first one, and [ErrJWTDisabled].
func (a *Authority) JWTState() (States, error) { return a.states(kindJWT) }

func (a *Authority) states(k kind) (States, error) {
	if k == kindJWT && a.cfg.DisableJWT {
		return States{}, ErrJWTDisabled
	}
	active, next, err := a.slots(k)
	if err != nil {
		return States{}, err
	}
	states := States{Active: active.state()}
	switch {
	case next == nil:
	case next.status == storepb.X509Authority_PREPARED:
		states.Prepared = next.state()
	default:
		states.Old = next.state()
	}
	return states, nil
}

// slots returns what signs and what is in the other slot, nil if nothing is.
func (a *Authority) slots(k kind) (active, next *record, err error) {
	v := a.view.Load()
	if v == nil {
		return nil, nil, refuse(ErrNotReady, "server is initializing")
	}
	records := v.x509
	if k == kindJWT {
		records = v.jwt
	}
	if active = signing(a.cfg.Now(), records); active == nil {
		return nil, nil, refuse(ErrNotReady, "server is initializing")
	}
	return active, nextTo(active, records), nil
}

// names are how SPIRE's texts name the kinds.
func (k kind) text() string { return [...]string{"X.509", "JWT"}[k] }

// PrepareX509 makes and publishes the next X.509 authority at once, in place of
// one that was prepared before or is old. It signs when told to, and else when
// one prepared on the timeline would at the latest.
func (a *Authority) PrepareX509(ctx context.Context) (AuthorityState, error) {
	return a.forcePrepare(ctx, kindX509)
}

// PrepareJWT is [Authority.PrepareX509] of JWT.
func (a *Authority) PrepareJWT(ctx context.Context) (AuthorityState, error) {
	return a.forcePrepare(ctx, kindJWT)
}

func (a *Authority) forcePrepare(ctx context.Context, k kind) (AuthorityState, error) {
	return a.force(ctx, k, func(now time.Time, l *lane, _, _ *record) (string, error) {
		if err := a.create(ctx, now, l, creation{status: storepb.X509Authority_PREPARED}); err != nil {
			return "", fmt.Errorf("failed to prepare %s authority: %w", k.text(), err)
		}
		prepared := newest(now, l.records, storepb.X509Authority_PREPARED)
		if prepared == nil {
			return "", fmt.Errorf("failed to prepare %s authority: another took its place", k.text())
		}
		return prepared.id, nil
	})
}

// ActivateX509 lets the prepared X.509 authority sign from now on.
func (a *Authority) ActivateX509(ctx context.Context, id string) (AuthorityState, error) {
	return a.forceActivate(ctx, kindX509, id)
}

// ActivateJWT is [Authority.ActivateX509] of JWT.
func (a *Authority) ActivateJWT(ctx context.Context, id string) (AuthorityState, error) {
	return a.forceActivate(ctx, kindJWT, id)
}

func (a *Authority) forceActivate(ctx context.Context, k kind, id string) (AuthorityState, error) {
	return a.force(ctx, k, func(now time.Time, l *lane, _, next *record) (string, error) {
		switch {
		case id == "":
			return "", refuse(ErrAuthorityID, "no authority ID provided")
		case next == nil || id != next.id:
			return "", refuse(ErrAuthorityID, "unexpected authority ID")
		case next.status != storepb.X509Authority_PREPARED:
			return "", refuse(ErrAuthorityState, "only Prepared authorities can be activated: unsupported local authority status: %v", next.status)
		case next.signer == nil:
			return "", refuse(ErrAuthorityState, "only Prepared authorities can be activated: the key of %s is gone", id)
		}
		if err := a.activate(ctx, now, l, next); err != nil {
			return "", fmt.Errorf("failed to activate %s authority: %w", k.text(), err)
		}
		return id, nil
	})
}

// force gives one change by hand the turn, and returns the state of the
// authority that it names.
func (a *Authority) force(ctx context.Context, k kind, change func(now time.Time, l *lane, active, next *record) (id string, err error)) (AuthorityState, error) {
	if k == kindJWT && a.cfg.DisableJWT {
		return AuthorityState{}, ErrJWTDisabled
	}
	if _, _, err := a.slots(k); err != nil {
		return AuthorityState{}, err
	}
	if err := a.take(ctx); err != nil {
		return AuthorityState{}, err
	}
	defer a.give()
	defer a.nudge()
	if err := a.reload(ctx); err != nil {
		return AuthorityState{}, fmt.Errorf("load authorities: %w", err)
	}
	active, next, err := a.slots(k)
	if err != nil {
		return AuthorityState{}, err
	}
	now := a.cfg.Now().Round(0)
	l := a.lane(k)
	id, err := change(now, l, active, next)
	if err != nil {
		a.stale = true
		return AuthorityState{}, err
	}
	if err := a.renewOwn(ctx, now); err != nil {
		a.cfg.Log.Error("the issuer's own SVID is not renewed", "error", err)
	}
	for _, r := range l.records {
		if r.id == id {
			return *r.state(), nil
		}
	}
	// As SPIRE's API has it of what it does not know.
	return AuthorityState{ID: id, ExpiresAt: time.Unix(0, 0)}, nil
}
