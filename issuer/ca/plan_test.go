package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// at is a record issued at epoch+from that ends at epoch+to, with its key.
func at(status storepb.X509Authority_Status, from, to time.Duration) *record {
	return &record{
		status:   status,
		signer:   &ecdsa.PrivateKey{},
		issued:   epoch.Add(from),
		notAfter: epoch.Add(to),
	}
}

func eager(r *record) *record {
	r.eager = true
	return r
}

func distrusted(r *record) *record {
	r.distrusted = true
	return r
}

func withoutKey(r *record) *record {
	r.signer = crypto.Signer(nil)
	return r
}

func TestPlan(t *testing.T) {
	const (
		active   = storepb.X509Authority_ACTIVE
		prepared = storepb.X509Authority_PREPARED
		old      = storepb.X509Authority_OLD
		day      = 24 * time.Hour
		h        = time.Hour
	)
	for _, tt := range []struct {
		name         string
		now          time.Duration
		records      []*record
		held, urgent bool
		prune        time.Duration
		want         action
		wait         time.Duration // until, of actWait
		holders      bool
	}{
		{name: "first start", want: actCreate},
		{name: "young", now: h, records: []*record{at(active, 0, day)}, want: actWait, wait: 12 * h},
		{name: "just before half", now: 12*h - 1, records: []*record{at(active, 0, day)}, want: actWait, wait: 12 * h},
		{name: "half", now: 12 * h, records: []*record{at(active, 0, day)}, want: actPrepare},
		{
			name: "prepared in time", now: 12 * h,
			records: []*record{at(active, 0, day), at(prepared, 12*h, 36*h)},
			want:    actWait, wait: 20 * h,
		},
		{
			name: "five sixths", now: 20 * h,
			records: []*record{at(active, 0, day), at(prepared, 12*h, 36*h)},
			want:    actActivate,
		},
		{
			name: "prepared late, waits for half of what is left", now: 22 * h,
			records: []*record{at(active, 0, day), at(prepared, 22*h, 46*h)},
			want:    actWait, wait: 23 * h,
		},
		{
			name: "a year: prepared 30 days before the end", now: 334 * day,
			records: []*record{at(active, 0, 365*day)},
			want:    actWait, wait: 335 * day,
		},
		{
			name: "a year: activated 7 days before the end", now: 340 * day,
			records: []*record{at(active, 0, 365*day), at(prepared, 335*day, 700*day)},
			want:    actWait, wait: 358 * day,
		},
		{
			name: "active expired while the issuer was down", now: 25 * h,
			records: []*record{at(active, 0, day), at(prepared, 12*h, 36*h)},
			want:    actActivate,
		},
		{
			name: "both expired while the issuer was down", now: 40 * h,
			records: []*record{at(active, 0, day), at(prepared, 12*h, 36*h)},
			want:    actCreate,
		},
		{name: "expires this instant", now: day, records: []*record{at(active, 0, day)}, want: actCreate},
		{name: "key gone", now: h, records: []*record{withoutKey(at(active, 0, day))}, want: actCreate},
		{
			name: "key of the active gone, successor has one", now: 13 * h,
			records: []*record{withoutKey(at(active, 0, day)), at(prepared, 12*h, 36*h)},
			want:    actActivate,
		},
		{
			name: "key of the successor gone", now: 13 * h,
			records: []*record{at(active, 0, day), withoutKey(at(prepared, 12*h, 36*h))},
			want:    actPrepare,
		},
		{name: "an old one never signs again", now: h, records: []*record{at(old, 0, day)}, want: actCreate},
		{
			name: "something may be pruned later", now: 21 * h, prune: 22 * h,
			records: []*record{at(active, 18*h, 42*h)},
			want:    actWait, wait: 22 * h,
		},
		{name: "something may be pruned", now: 22 * h, prune: 22 * h, records: []*record{at(active, 18*h, 42*h)}, want: actPrune},
		{name: "nothing can sign: that comes before pruning", now: 22 * h, prune: 1, want: actCreate},
		{
			name: "eager, not held: SPIRE's point, or once it is held", now: 13 * h,
			records: []*record{at(active, 0, day), eager(at(prepared, 12*h, 36*h))},
			want:    actWait, wait: 20 * h, holders: true,
		},
		{
			name: "eager and held, settling for those that poll", now: 12 * h, held: true,
			records: []*record{at(active, 0, day), eager(at(prepared, 12*h, 36*h))},
			want:    actWait, wait: 12*h + 5*time.Minute,
		},
		{
			name: "eager, held and settled", now: 12*h + 5*time.Minute, held: true,
			records: []*record{at(active, 0, day), eager(at(prepared, 12*h, 36*h))},
			want:    actActivate,
		},
		{
			name: "urgent: held is enough", now: 12 * h, held: true, urgent: true,
			records: []*record{at(active, 0, day), eager(at(prepared, 12*h, 36*h))},
			want:    actActivate,
		},
		{
			name: "prepared by hand: holding it changes nothing", now: 13 * h, held: true,
			records: []*record{at(active, 0, day), at(prepared, 12*h, 36*h)},
			want:    actWait, wait: 20 * h,
		},
		{
			name: "eager, SPIRE's point", now: 20 * h,
			records: []*record{at(active, 0, day), eager(at(prepared, 12*h, 36*h))},
			want:    actActivate,
		},
		{
			name: "a short life settles soon", now: 30 * time.Minute, held: true,
			records: []*record{at(active, 0, h), eager(at(prepared, 30*time.Minute, 90*time.Minute))},
			want:    actWait, wait: 32*time.Minute + 30*time.Second,
		},
		{name: "tainted", now: h, records: []*record{distrusted(at(active, 0, day))}, want: actPrepare},
		{
			name: "tainted, and so is the successor", now: h,
			records: []*record{distrusted(at(active, 0, day)), distrusted(at(prepared, h, day))},
			want:    actPrepare,
		},
		{
			name: "tainted, and its successor is not: at once", now: h,
			records: []*record{distrusted(at(active, 0, day)), at(prepared, h, day)},
			want:    actActivate,
		},
		{name: "clock a little before the authority", now: -30 * time.Second, records: []*record{at(active, 0, day)}, want: actWait, wait: 12 * h},
		{name: "clock set back to before the authority", now: -2 * time.Minute, records: []*record{at(active, 0, day)}, want: actCreate},
		{
			name: "clock set right again", now: h,
			records: []*record{at(prepared, 0, day), at(active, -day, h)},
			want:    actActivate,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := conditions{now: epoch.Add(tt.now), held: tt.held, urgent: tt.urgent}
			if tt.prune != 0 {
				c.pruneAt = epoch.Add(tt.prune)
			}
			got := plan(tt.records, c)
			if got.action != tt.want {
				t.Fatalf("action = %v, want %v", got.action, tt.want)
			}
			if tt.want == actWait && !got.at.Equal(epoch.Add(tt.wait)) {
				t.Errorf("wait until %v, want %v", got.at.Sub(epoch), tt.wait)
			}
			if got.holders != tt.holders {
				t.Errorf("holders = %v, want %v", got.holders, tt.holders)
			}
		})
	}
}

// What is due by the wall clock must not wait for the monotonic one, which
// stands still while the machine sleeps.
func TestRenewalOfOwnSVIDIsOnTheWallClock(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("lanyard.test")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template, err := caTemplate(td, pkix.Name{}, key.Public(), now, DefaultTTL)
	if err != nil {
		t.Fatal(err)
	}
	certified, err := selfSigned{}.Certify(t.Context(), CertifyRequest{Template: template, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	cert := certified.Chain[0]
	leaves, err := newLeafMaker(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{TrustDomain: td})
	a.x509.active.Store(&record{cert: cert, notAfter: cert.NotAfter, signer: key, leaves: leaves})
	if err := a.renewOwn(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if a.renewAt != a.renewAt.Round(0) || !a.renewAt.After(now) {
		t.Errorf("due at %v, want a wall-clock time after now", a.renewAt)
	}
}
