package svidcache

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// record is one entry and its SVID. All fields are guarded by Cache.mu.
type record struct {
	entry registration.Entry
	svid  *svid // the last good one; nil: none yet, or expired
	// resign: what the certificate says has changed; the SVID serves until
	// the new one is there.
	resign bool
	// prefetch: kept although nobody asked yet.
	prefetch bool
	// demand counts the sets with streams that wait for this SVID.
	demand int
	used   time.Time // when demand last fell to 0
	sets   map[*set]struct{}

	busy    bool // a request is under way
	version int  // counts changes of the certificate's content
	fails   int  // in a row
	nextTry time.Time
	// unreachable: the last failure was not about this entry.
	unreachable bool

	// template is what an instance was made from; nil for all others.
	template *record
	// instances of an ID template, those that a set has.
	instances map[spiffeid.ID]*record
}

// active reports whether the record is to have an SVID.
func (r *record) active() bool { return r.demand > 0 || r.prefetch || r.svid != nil }

// due returns when the record next needs the issuer; it is false if never.
func (r *record) due() (time.Time, bool) {
	if r.busy || !r.active() {
		return time.Time{}, false
	}
	var at time.Time // now
	if r.svid != nil && !r.resign {
		at = r.svid.rotateAt
	}
	if r.nextTry.After(at) {
		at = r.nextTry
	}
	return at, true
}

// urgent reports whether somebody is waiting.
func (r *record) urgent() bool { return r.demand > 0 && r.svid == nil }

const (
	firstRetry   = 250 * time.Millisecond
	longestRetry = 30 * time.Second
	// longestWait is the longest retry while somebody is waiting.
	longestWait = 2 * time.Second
)

// failed puts the next try off, per identity, and no later than several tries
// before what there is expires.
func (r *record) failed(now time.Time) {
	r.fails++
	delay := firstRetry << min(r.fails-1, 10)
	most := longestRetry
	switch {
	case r.svid != nil:
		most = min(most, max(firstRetry, r.svid.notAfter.Sub(now)/4))
	case r.demand > 0:
		most = longestWait
	}
	delay = min(delay, most)
	r.nextTry = now.Add(time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64())))
}

// hurry shortens the wait after failures that nobody was waiting on: somebody is
// from now on.
func (r *record) hurry(now time.Time) {
	if soon := now.Add(longestWait); r.svid == nil && r.nextTry.After(soon) {
		r.nextTry = soon
	}
}

// sameCertificate reports whether an SVID for a serves b. Extending this is all
// that a new field of the certificate needs.
func sameCertificate(a, b registration.Entry) bool {
	return a.SPIFFEID == b.SPIFFEID && a.Template == b.Template && a.X509SVIDTTL == b.X509SVIDTTL && slices.Equal(a.DNSNames, b.DNSNames)
}

// sameAnswer reports whether answers with a and b, given the same SVIDs, are
// the same, and whether the same callers get them.
func sameAnswer(a, b registration.Entry) bool {
	return a.SPIFFEID == b.SPIFFEID && a.Template == b.Template && a.Hint == b.Hint && a.StoreSVID == b.StoreSVID && a.CreatedAt.Equal(b.CreatedAt) &&
		slices.Equal(a.Selectors, b.Selectors) && slices.Equal(a.FederatesWith, b.FederatesWith)
}
