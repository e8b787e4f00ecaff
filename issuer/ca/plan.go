package ca

import (
	"crypto"
	"crypto/x509"
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
	// keepExpired is how long an expired authority stays in the bundle, for
	// verifiers whose clock is behind.
	keepExpired = 24 * time.Hour
)

// record is one authority of this issuer. It is immutable.
type record struct {
	id     string // lower-case hex of the subject key identifier
	slot   string // where its key is
	status storepb.X509Authority_Status
	cert   *x509.Certificate
	chain  []*x509.Certificate // cert, then its intermediates
	behind []*x509.Certificate // what of chain goes behind the leaves it signs
	signer crypto.Signer       // nil if the slot's key is another's, or gone
	issued time.Time
}

func (r *record) usable(now time.Time) bool {
	return r.signer != nil && now.Before(r.cert.NotAfter)
}

func (r *record) lifetime() time.Duration { return r.cert.NotAfter.Sub(r.issued) }

// prepareAt is when the successor of r is due.
func (r *record) prepareAt() time.Time {
	return r.cert.NotAfter.Add(-min(r.lifetime()/2, maxPrepareLead))
}

// activateAt is when next takes over from r. One that was prepared late, since
// the issuer was down or the store could not be written, is given half of what
// is left of r, so that the bundle reaches agents before the signature does.
func (r *record) activateAt(next *record) time.Time {
	due := r.cert.NotAfter.Add(-min(r.lifetime()/6, maxActivateLead))
	if half := next.issued.Add(r.cert.NotAfter.Sub(next.issued) / 2); half.After(due) {
		return half
	}
	return due
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
}

// plan says what the authorities need at now. It is the whole policy of
// rotation, and pure.
func plan(now time.Time, records []*record) step {
	active := newest(now, records, storepb.X509Authority_ACTIVE)
	prepared := newest(now, records, storepb.X509Authority_PREPARED)
	switch {
	case active == nil && prepared == nil:
		return step{action: actCreate}
	case active == nil:
		// It has been in the bundle for as long as anyone could wait.
		return step{action: actActivate, record: prepared}
	}
	prune := pruneAt(records, active)
	if !prune.IsZero() && !now.Before(prune) {
		return step{action: actPrune}
	}
	next := active.prepareAt()
	if prepared == nil && !now.Before(next) {
		return step{action: actPrepare}
	}
	if prepared != nil {
		if next = active.activateAt(prepared); !now.Before(next) {
			return step{action: actActivate, record: prepared}
		}
	}
	if !prune.IsZero() && prune.Before(next) {
		next = prune
	}
	return step{action: actWait, at: next}
}

// newest returns the usable authority of that status which was issued last.
func newest(now time.Time, records []*record, status storepb.X509Authority_Status) *record {
	var found *record
	for _, r := range records {
		if r.status == status && r.usable(now) && (found == nil || r.issued.After(found.issued)) {
			found = r
		}
	}
	return found
}

// pruneAt is when the first authority besides active may be forgotten; zero if
// there is none.
func pruneAt(records []*record, active *record) time.Time {
	var first time.Time
	for _, r := range records {
		at := r.cert.NotAfter.Add(keepExpired)
		if r != active && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
