package upstream

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// longestSleep bounds how long a step of the clock goes unnoticed: timers stop
// while the machine is suspended, certificates don't.
const longestSleep = 30 * time.Second

// keeping is the state of one [Client.keep].
type keeping struct {
	c         *Client
	wait      growing   // between tries to renew
	notBefore time.Time // of the next try
	waitAnew  growing   // between tries to begin anew
	anewAt    time.Time // of the next try; zero: none was made yet
	asking    Asking
	waitSave  growing   // between tries to write what is not on disk
	saveAt    time.Time // of the next try; zero: all is there
}

// keep renews the agent's SVID at half its life until ctx ends or the issuer
// refuses the agent.
func (c *Client) keep(ctx context.Context) (*RefusedError, error) {
	k := &keeping{
		c: c, asking: Asking{Anew: true},
		wait:     growing{first: time.Second, most: time.Minute},
		waitAnew: growing{first: min(5*time.Second, c.cfg.Rebootstrap.Delay), most: 5 * time.Minute},
		waitSave: growing{first: time.Second, most: time.Minute},
	}
	for {
		k.save()
		begun := c.mistake.begun.fired()
		timer := time.NewTimer(min(time.Until(k.next()), longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case d := <-c.denials:
			timer.Stop()
			refused, err := c.examine(ctx, d)
			if refused != nil || err != nil {
				return refused, err
			}
			continue
		case <-c.id.wake:
		case <-begun:
		case <-timer.C:
		}
		timer.Stop()
		if refused := k.work(ctx); refused != nil {
			return refused, nil
		}
	}
}

// renewAt is when the SVID is to be renewed.
func (k *keeping) renewAt() time.Time {
	if due := k.c.id.renewal(); due.After(k.notBefore) {
		return due
	}
	return k.notBefore
}

// beginAt is when the agent is to begin anew, zero: not as things are.
func (k *keeping) beginAt() time.Time {
	at := k.c.rebootstrapAt()
	if !at.IsZero() && k.anewAt.After(at) {
		return k.anewAt
	}
	return at
}

func (k *keeping) next() time.Time {
	next := k.renewAt()
	for _, at := range []time.Time{k.beginAt(), k.saveAt} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// save tries now and then to write what is not on disk.
func (k *keeping) save() {
	switch {
	case k.c.id.settled():
		k.saveAt = time.Time{}
		k.waitSave.reset()
	case !k.saveAt.IsZero() && time.Now().Before(k.saveAt):
	case !k.saveAt.IsZero() && k.c.id.settle():
		k.saveAt = time.Time{}
		k.waitSave.reset()
	default:
		k.saveAt = time.Now().Add(jitter(k.waitSave.next()))
	}
}

// work does what is due.
func (k *keeping) work(ctx context.Context) *RefusedError {
	c := k.c
	if at := k.beginAt(); !at.IsZero() && !time.Now().Before(at) {
		if err := c.beginAnew(ctx, &k.asking); err != nil {
			next := k.waitAnew.next()
			k.anewAt = time.Now().Add(spread(next))
			c.log.Warn("cannot begin anew yet", "reason", reason(err), "retry_in", next.String())
			return nil
		}
		k.waitAnew.reset()
		k.asking = Asking{Anew: true}
		k.anewAt, k.notBefore = time.Time{}, time.Time{}
		return nil
	}
	if time.Now().Before(k.renewAt()) {
		return nil
	}
	err := c.renew(ctx)
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused
	}
	if err != nil && ctx.Err() == nil {
		pause := c.beforeExpiry(k.wait.next())
		k.notBefore = time.Now().Round(0).Add(jitter(pause))
		c.log.Warn("cannot renew the agent's SVID yet", "reason", reason(err), "retry_in", pause.String())
		return nil
	}
	k.wait.reset()
	k.notBefore = time.Time{}
	return nil
}

// beforeExpiry shortens d so that several tries fit before the SVID expires.
func (c *Client) beforeExpiry(d time.Duration) time.Duration {
	svid, _ := c.id.current()
	left := time.Until(svid.Certificates[0].NotAfter)
	if left <= 0 {
		return d
	}
	return max(min(d, left/4), 250*time.Millisecond)
}

// examine decides about a denial: of an SVID replaced meanwhile it says nothing.
func (c *Client) examine(ctx context.Context, d denial) (*RefusedError, error) {
	svid, _ := c.id.current()
	if d.svid != svid {
		return nil, nil
	}
	d, denied := c.askAgain(ctx, d)
	if !denied {
		return nil, ctx.Err()
	}
	if d.reason == types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		// The issuer lost the renewal but may know the SVID before it.
		if c.id.revert(svid, time.Now()) {
			c.moved.fire()
			return nil, nil
		}
	}
	return &RefusedError{ID: svid.ID, Reason: d.reason}, nil
}

const (
	// freshFor is how long an SVID may be unknown to some issuer of several that
	// share a store: those that follow hear of it a moment later.
	freshFor = 10 * time.Second
	// hearing is how long that takes at most, in two steps.
	hearing = time.Second
)

// askAgain makes sure of a denial that an issuer may be mistaken in: one that has
// not heard of a new agent, or of its renewal, by another just before. An agent that
// joined by token would be lost by it. It returns what the issuer says last.
func (c *Client) askAgain(ctx context.Context, d denial) (_ denial, denied bool) {
	unheard := d.reason == types.PermissionDeniedDetails_AGENT_NOT_ATTESTED || d.reason == types.PermissionDeniedDetails_AGENT_NOT_ACTIVE
	if !unheard || len(c.issuers.addrs) == 1 && !c.id.fresh(freshFor) {
		return d, true
	}
	for range 2 {
		if pause(ctx, hearing/2) != nil {
			return d, false
		}
		err := c.callAs(ctx, d.svid, c.patience(), func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := agentv1.NewAgentClient(conn).PostStatus(ctx, &agentv1.PostStatusRequest{AgentVersion: c.cfg.Version, CurrentBundleSerial: c.sequence.Load()})
			return err
		})
		reason, still := denialReason(err)
		if !still {
			// Denied no more, or by nobody: whoever asks next will hear it again.
			return d, false
		}
		d.reason = reason
	}
	return d, true
}
