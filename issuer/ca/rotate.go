package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// advance does everything that is due and returns when the next thing is, and a
// channel that is closed when it may be earlier, nil if it can't.
func (a *Authority) advance(ctx context.Context) (next time.Time, changed <-chan struct{}, err error) {
	if err := a.take(ctx); err != nil {
		return time.Time{}, nil, err
	}
	defer a.give()
	now := a.cfg.Now().Round(0) // the wall clock, which goes on while the machine sleeps
	a.watchClock(now)
	if err := a.reload(ctx); err != nil {
		err = fmt.Errorf("load authorities: %w", err)
		return a.renewAt, nil, also(err, a.renewOwn(ctx, now))
	}
	for _, k := range a.kinds() {
		at, early, failed := a.rotate(ctx, now, a.lane(k))
		if failed != nil {
			a.stale = true // the write may have reached the journal all the same
			err = also(err, failed)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		if early != nil {
			changed = early // the same of all kinds
		}
	}
	// The issuer's own SVID has its own schedule: it must not expire because
	// the store cannot be written.
	err = also(err, a.renewOwn(ctx, now))
	if a.renewAt.Before(next) {
		next = a.renewAt
	}
	return next, changed, err
}

// also joins two errors in one line; either may be nil.
func also(err, more error) error {
	if err == nil || more == nil {
		return cmp.Or(err, more)
	}
	return fmt.Errorf("%w; %w", err, more)
}

// watchClock says so when the clock was set back.
func (a *Authority) watchClock(now time.Time) {
	if back := a.lastTick.Sub(now); back > maxClockStep {
		a.cfg.Log.Warn("the clock was set back: nothing is lost, but what is signed now ends early for everyone whose clock is right",
			"by", back.Round(time.Second), "from", a.lastTick, "to", now)
	}
	a.lastTick = now
	for _, k := range a.kinds() {
		if active := a.lane(k).active.Load(); active != nil && active.early(now) {
			a.cfg.Log.Warn("the authority in use begins in the future: is the clock right?",
				"kind", k, "authority", active.id, "made", active.issued, "now", now)
		}
	}
}

// rotate follows the plan of one kind until it says wait.
func (a *Authority) rotate(ctx context.Context, now time.Time, l *lane) (next time.Time, changed <-chan struct{}, err error) {
	if err := a.afterRestore(ctx, now, l); err != nil {
		return now, nil, err
	}
	// Each round is one of create, prepare, activate and prune; more rounds
	// than that would mean that writes have no effect.
	for range 8 {
		c := conditions{now: now, urgent: l.urgent, pruneAt: a.view.Load().pruneAt}
		changed = nil
		todo := plan(l.records, c)
		if todo.action == actWait && todo.holders {
			if c.held, changed = a.held(); c.held {
				todo = plan(l.records, c)
			}
		}
		switch todo.action {
		case actWait:
			return todo.at, changed, nil
		case actCreate:
			err = a.create(ctx, now, l, creation{status: storepb.X509Authority_ACTIVE})
		case actPrepare:
			err = a.create(ctx, now, l, creation{status: storepb.X509Authority_PREPARED, eager: true})
		case actActivate:
			err = a.activate(ctx, now, l, todo.record)
		case actPrune:
			err = a.prune(ctx, now)
		}
		if err != nil {
			return now, nil, err
		}
	}
	return now, nil, errors.New("authorities do not settle: the journal does not keep what is written to it")
}

// held reports whether there are live agents that acknowledge bundles, and all
// of them hold the one there is.
func (a *Authority) held() (bool, <-chan struct{}) {
	if a.cfg.Holders == nil {
		return false, nil
	}
	missing, changed := a.cfg.Holders.Hold(a.view.Load().bundle.GetSequenceNumber())
	if len(missing) > 0 {
		return false, changed
	}
	// Nobody can hold a bundle that will never be: these are all live agents.
	all, _ := a.cfg.Holders.Hold(math.MaxUint64)
	return len(all) > 0, changed
}

// afterRestore prepares an authority in place of a restored one, once.
func (a *Authority) afterRestore(ctx context.Context, now time.Time, l *lane) error {
	i := slices.Index(a.restored, l.kind)
	if i < 0 {
		return nil
	}
	// Without one that can sign, the plan makes one that nobody else has.
	if newest(now, l.records, storepb.X509Authority_ACTIVE) != nil {
		if err := a.create(ctx, now, l, creation{status: storepb.X509Authority_PREPARED, eager: true}); err != nil {
			return err
		}
		l.urgent = true
	}
	a.restored = slices.Delete(a.restored, i, i+1)
	return nil
}

// update changes the journal and then the records from what it has.
func (a *Authority) update(ctx context.Context, change func(*store.CAState) error) error {
	if _, err := a.cfg.Journal.UpdateCA(ctx, change); err != nil {
		a.stale = true
		return err
	}
	a.stale = true
	return a.reload(ctx)
}

// activate lets r sign from now on, and the one before it no more.
func (a *Authority) activate(ctx context.Context, now time.Time, l *lane, r *record) error {
	err := a.update(ctx, func(s *store.CAState) error {
		for _, e := range entries(s, l.kind) {
			switch {
			case e.id == r.id:
				*e.status = storepb.X509Authority_ACTIVE
			case *e.status == storepb.X509Authority_ACTIVE:
				*e.status = storepb.X509Authority_OLD
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record that authority %s signs: %w", r.id, err)
	}
	l.urgent = false
	a.cfg.Log.Info("authority activated", "kind", l.kind, "authority", r.id, "expires", r.notAfter, "next_prepared", r.prepareAt())
	return nil
}

// entry is what records of all kinds have.
type entry struct {
	id, slot string
	issued   time.Time
	status   *storepb.X509Authority_Status
}

// entries are the records of one kind, to be changed in place.
func entries(s *store.CAState, k kind) []entry {
	var all []entry
	if k == kindJWT {
		for _, p := range s.JWTAuthorities {
			all = append(all, entry{p.GetAuthorityId(), p.GetKeyId(), time.Unix(p.GetIssuedAt(), 0), &p.Status})
		}
		return all
	}
	for _, p := range s.Authorities {
		all = append(all, entry{p.GetAuthorityId(), p.GetKeyId(), time.Unix(p.GetIssuedAt(), 0), &p.Status})
	}
	return all
}

// retire makes way for a new authority in slot: what was there is old, and so
// is what had its status. One that begins in the future, by a clock that was set
// back, waits for it.
func retire(s *store.CAState, k kind, slot string, status storepb.X509Authority_Status, now time.Time) {
	for _, e := range entries(s, k) {
		switch {
		case e.slot == slot:
			*e.status = storepb.X509Authority_OLD
		case *e.status != status:
		case k == kindX509 && now.Add(maxClockStep).Before(e.issued):
			*e.status = storepb.X509Authority_PREPARED
		default:
			*e.status = storepb.X509Authority_OLD
		}
	}
}

// publishedRoots returns the bundle with each of roots in it once, but for those
// that were revoked.
func publishedRoots(bundle *types.Bundle, td string, roots []Root, revoked []*storepb.RevokedAuthority) *types.Bundle {
	if bundle == nil {
		bundle = &types.Bundle{TrustDomain: td}
	}
	for _, root := range roots {
		if isRevoked(revoked, kindX509, keyIDOf(root.Certificate)) || findX509(bundle, root.Certificate.Raw) != nil {
			continue
		}
		bundle.X509Authorities = append(bundle.X509Authorities,
			&types.X509Certificate{Asn1: root.Certificate.Raw, Tainted: root.Tainted})
	}
	return bundle
}
