package ca

import (
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// The timeline of an authority with lifetime L, SPIRE's: its successor is
// prepared, and published in the bundle, min(L/2, 30 days) before its end and
// signs from min(L/6, 7 days) before its end. With the default of 24 h that
// leaves everyone 8 h to learn the new one.
const (
	maxPrepareLead  = 30 * 24 * time.Hour
	maxActivateLead = 7 * 24 * time.Hour
	// maxSettle is how long an authority that all agents hold waits at least, of
	// a lifetime of two hours or more, for those that poll: federated trust
	// domains, downstream issuers, readers of JWKS.
	maxSettle = 5 * time.Minute
	// keepExpired is how long an expired authority stays in the bundle, for
	// verifiers whose clock is behind.
	keepExpired = 24 * time.Hour
	// maxClockStep is by how much a clock may be set back without notice.
	maxClockStep = time.Minute
)

// prepareAt is when the successor of r is due.
func (r *record) prepareAt() time.Time {
	return r.notAfter.Add(-min(r.lifetime()/2, maxPrepareLead))
}

// activateAt is when next takes over from r at the latest. One that was prepared
// late, since the issuer was down or the store could not be written, is given
// half of what is left of r, so that the bundle reaches agents before the
// signature does.
func (r *record) activateAt(next *record) time.Time {
	due := r.notAfter.Add(-min(r.lifetime()/6, maxActivateLead))
	if half := next.issued.Add(r.notAfter.Sub(next.issued) / 2); half.After(due) {
		return half
	}
	return due
}

// settledAt is when r may sign at the earliest, all agents holding it.
func (r *record) settledAt() time.Time {
	return r.issued.Add(min(r.lifetime()/24, maxSettle))
}

type action int

const (
	actWait     action = iota // until step.at
	actCreate                 // no authority can sign: make one that does at once
	actPrepare                // publish the successor
	actActivate               // step.record takes over
	actPrune                  // forget authorities that expired long ago
)

// step is what is to be done next.
type step struct {
	action action
	record *record
	at     time.Time
	// holders: it may be earlier, once all agents hold the prepared one.
	holders bool
}

// conditions are what the plan depends on besides the records.
type conditions struct {
	now time.Time
	// held: all agents hold the prepared authority, and there are some.
	held bool
	// urgent: that is enough, it need not settle.
	urgent bool
	// pruneAt is when something may be forgotten; zero is never.
	pruneAt time.Time
}

// plan says what the authorities of one kind need. It is the whole policy of
// rotation, and pure.
func plan(records []*record, c conditions) step {
	active := newest(c.now, records, storepb.X509Authority_ACTIVE)
	prepared := newest(c.now, records, storepb.X509Authority_PREPARED)
	switch {
	case active == nil && prepared == nil:
		return step{action: actCreate}
	case active == nil:
		// It has been in the bundle for as long as anyone could wait.
		return step{action: actActivate, record: prepared}
	case active.distrusted && (prepared == nil || prepared.distrusted):
		return step{action: actPrepare}
	case active.distrusted:
		return step{action: actActivate, record: prepared}
	case !c.pruneAt.IsZero() && !c.now.Before(c.pruneAt):
		return step{action: actPrune}
	}
	next := step{at: active.prepareAt()}
	if prepared == nil && !c.now.Before(next.at) {
		return step{action: actPrepare}
	}
	if prepared != nil {
		if next = activation(active, prepared, c); !c.now.Before(next.at) {
			return step{action: actActivate, record: prepared}
		}
	}
	if !c.pruneAt.IsZero() && c.pruneAt.Before(next.at) {
		next.at = c.pruneAt
	}
	return next
}

// activation says when prepared takes over as things stand.
func activation(active, prepared *record, c conditions) step {
	latest := active.activateAt(prepared)
	if !prepared.eager {
		return step{at: latest}
	}
	settled := prepared.settledAt()
	if c.urgent {
		settled = prepared.issued
	}
	if !settled.Before(latest) {
		return step{at: latest}
	}
	if c.held {
		return step{at: settled}
	}
	return step{at: latest, holders: true}
}

// newest returns the usable authority of that status which was issued last.
func newest(now time.Time, records []*record, status storepb.X509Authority_Status) *record {
	var found *record
	for _, r := range records {
		if r.status == status && r.usable(now) && (found == nil || !r.issued.Before(found.issued)) {
			found = r
		}
	}
	return found
}

// nextTo returns the record of the slot that active is not in, SPIRE's "next":
// what is prepared, or else what was active before. Nil is nothing.
func nextTo(active *record, records []*record) *record {
	var found *record
	rank := func(r *record) int {
		switch {
		case r.status == storepb.X509Authority_PREPARED:
			return 2
		case r.signer != nil:
			return 1
		}
		return 0
	}
	for _, r := range records {
		if r.slot == active.slot || r.status == storepb.X509Authority_ACTIVE {
			continue
		}
		if found == nil || rank(r) > rank(found) || rank(r) == rank(found) && !r.issued.Before(found.issued) {
			found = r
		}
	}
	return found
}

// freeSlot returns the slot whose key nothing needs any more. What is not valid
// yet by a clock that was set back is needed when that is set right.
func freeSlot(now time.Time, k kind, records []*record) string {
	var keep *record
	for _, r := range records {
		if r.status == storepb.X509Authority_OLD || r.signer == nil || !now.Before(r.notAfter) {
			continue
		}
		if keep == nil || keep.status != storepb.X509Authority_ACTIVE {
			keep = r
		}
	}
	if keep == nil {
		return k.slots()[0]
	}
	return k.otherSlot(keep.slot)
}
