package ca

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// Authority is the issuer's signing side: the authorities in use, those that
// will follow, and the issuer's own SVID. All change is made by whoever has the
// turn: [Authority.Load], [Authority.Run], and the calls that force a change.
// Signing may be called from any goroutine and touches neither disk nor store.
type Authority struct {
	cfg      Config
	serverID spiffeid.ID

	// turn holds one token: whoever took it owns the fields below.
	turn     chan struct{}
	x509     lane
	jwt      lane
	stale    bool // records may not be what the journal has
	seen     uint64
	lastTick time.Time
	restored []kind // that are still to be prepared after a restore
	parents  Roots  // what the parent told last
	renewAt  time.Time
	ownBy    string // the authority that signed the issuer's own SVID

	wake chan struct{} // one token: something has changed, look again
	// view is what readers without the turn see; nil before Load.
	view atomic.Pointer[view]
	own  atomic.Pointer[x509svid.SVID] // nil before Load

	mu      sync.Mutex // guards rotated
	rotated chan struct{}
}

// lane is the authorities of one kind.
type lane struct {
	kind    kind
	records []*record              // oldest first
	active  atomic.Pointer[record] // signs; nil before the first
	urgent  bool                   // the prepared one need not settle
}

// view is immutable.
type view struct {
	x509, jwt []*record
	bundle    *types.Bundle
	// pruneAt is when something in the journal or the bundle may be forgotten;
	// zero if nothing ever may.
	pruneAt time.Time
}

// New returns an Authority that can sign once it is loaded.
func New(cfg Config) *Authority {
	cfg.setDefaults()
	a := &Authority{
		cfg:      cfg,
		serverID: spiffeid.RequireFromSegments(cfg.TrustDomain, "spire", "server"),
		turn:     make(chan struct{}, 1),
		x509:     lane{kind: kindX509},
		jwt:      lane{kind: kindJWT},
		stale:    true,
		wake:     make(chan struct{}, 1),
		rotated:  make(chan struct{}),
	}
	a.turn <- struct{}{}
	if cfg.Restored {
		a.restored = a.kinds()
	}
	return a
}

// kinds are those of the authorities that this issuer has.
func (a *Authority) kinds() []kind {
	if a.cfg.DisableJWT {
		return []kind{kindX509}
	}
	return []kind{kindX509, kindJWT}
}

func (a *Authority) lane(k kind) *lane {
	if k == kindJWT {
		return &a.jwt
	}
	return &a.x509
}

// take waits for the turn.
func (a *Authority) take(ctx context.Context) error {
	select {
	case <-a.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Authority) give() { a.turn <- struct{}{} }

// nudge makes Run look again.
func (a *Authority) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Rotated returns a channel that is closed at the next change of the
// authorities, their taints, or the issuer's own SVID.
func (a *Authority) Rotated() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rotated
}

func (a *Authority) announce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.rotated)
	a.rotated = make(chan struct{})
}

// Load reads the authorities, does what has become due since the issuer last
// ran, makes the first authorities if there are none, and signs the issuer's
// own SVID. On return the bundle has the authorities that sign. What cannot be
// done now is left to Run, with a log line, if there is enough to sign with.
func (a *Authority) Load(ctx context.Context) error {
	if most := MaxSVIDTTL(a.cfg.TTL); max(a.cfg.X509SVIDTTL, a.cfg.AgentTTL, a.cfg.JWTSVIDTTL) > most {
		a.cfg.Log.Warn("SVIDs may end early, with the authority that signed them",
			"ca_ttl", a.cfg.TTL, "default_x509_svid_ttl", a.cfg.X509SVIDTTL, "agent_ttl", a.cfg.AgentTTL,
			"default_jwt_svid_ttl", a.cfg.JWTSVIDTTL, "longest_always_honoured", most)
	}
	_, _, err := a.advance(ctx)
	// After a restore the mark of it is taken off when this returns nil.
	if err == nil || ctx.Err() != nil || a.own.Load() == nil || len(a.restored) > 0 {
		return err
	}
	now := a.cfg.Now()
	for _, k := range a.kinds() {
		if active := a.lane(k).active.Load(); active == nil || !active.usable(now) {
			return err
		}
	}
	a.cfg.Log.Error("rotation failed, starting with the authorities there are", "error", err)
	return nil
}

// Run keeps the authorities and the issuer's SVID fresh, and the bundle in step
// with the parent's, until ctx is done, and returns nil then. A rotation that
// fails is logged and tried again: what is held goes on signing until it
// expires.
func (a *Authority) Run(ctx context.Context) error {
	if watcher, ok := a.cfg.Parent.(Watcher); ok {
		var watching sync.WaitGroup
		defer watching.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watching.Go(func() { a.follow(ctx, watcher) })
	}
	retry := minRetry
	for {
		next, changed, err := a.advance(ctx)
		sleep := min(max(next.Sub(a.cfg.Now()), minRetry), maxSleep)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.cfg.Log.Error("rotation failed, keeping what there is", "error", err, "retry_in", retry)
			sleep, retry = retry, min(2*retry, maxSleep)
		default:
			retry = minRetry
		}
		a.pause(ctx, sleep, changed)
	}
}

// pause sleeps, until there is reason to look again. Acknowledgements come in
// by the thousand: they are looked at together.
func (a *Authority) pause(ctx context.Context, sleep time.Duration, changed <-chan struct{}) {
	timer := time.NewTimer(sleep)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-a.wake:
	case <-changed:
		gather := time.NewTimer(gatherAcks)
		defer gather.Stop()
		select {
		case <-ctx.Done():
		case <-gather.C:
		}
	}
}

// Retry bounds of a rotation that failed, and the longest sleep: the machine
// may have been suspended, its clock set, or the bundle changed by another
// issuer meanwhile.
const (
	minRetry = time.Second
	maxSleep = time.Minute
	// gatherAcks is how long acknowledgements are gathered before they count.
	gatherAcks = 100 * time.Millisecond
)

// kind is what authorities sign.
type kind int

const (
	kindX509 kind = iota
	kindJWT
)

func (k kind) String() string { return [...]string{"x509", "jwt"}[k] }

// slots are where the keys are, by SPIRE's names. Two are enough: one key signs,
// the other follows. What an old authority signed is verified with the bundle,
// so its key is overwritten.
func (k kind) slots() [2]string {
	return [...][2]string{{"x509-CA-A", "x509-CA-B"}, {"JWT-Signer-A", "JWT-Signer-B"}}[k]
}

// otherSlot is the one that is not slot.
func (k kind) otherSlot(slot string) string {
	slots := k.slots()
	return slots[1-max(0, slices.Index(slots[:], slot))]
}
