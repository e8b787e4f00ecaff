package serverapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// took is how long a wait takes on the bubble's clock.
func took(t *testing.T, wait func() error) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, wait())
	return time.Since(start)
}

func TestLimiterSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](10, 20, 100)
		ctx := t.Context()
		for range 20 {
			if d := took(t, func() error { return l.wait(ctx, "a", 1) }); d != 0 {
				t.Fatalf("within the burst, waited %s", d)
			}
		}
		if d := took(t, func() error { return l.wait(ctx, "a", 5) }); d != 500*time.Millisecond {
			t.Errorf("5 tokens of 10 a second: waited %s", d)
		}
		if d := took(t, func() error { return l.wait(ctx, "b", 20) }); d != 0 {
			t.Errorf("another key waited %s", d)
		}
		time.Sleep(time.Hour)
		if d := took(t, func() error { return l.wait(ctx, "a", 20) }); d != 0 {
			t.Errorf("a full bucket: waited %s", d)
		}
		if d := took(t, func() error { return l.wait(ctx, "a", 1) }); d != 100*time.Millisecond {
			t.Errorf("the bucket holds more than its burst: waited %s", d)
		}
		wantStatus(t, l.wait(ctx, "a", 21), codes.ResourceExhausted, "rate (21) exceeds burst size (20)")
	})
}

func TestLimiterRefusesLongWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](1, 10, 100)
		var waiting sync.WaitGroup
		defer waiting.Wait()
		must(t, l.wait(t.Context(), "a", 10))
		for range 3 { // 10, 20 and 30 s
			waiting.Go(func() { must(t, l.wait(t.Context(), "a", 10)) })
		}
		synctest.Wait()
		err := l.wait(t.Context(), "a", 1)
		wantStatus(t, err, codes.ResourceExhausted, "the limit is 10 at once and 1 a second: try again in 2s")

		// Nobody waits for what comes after their deadline.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := l.wait(ctx, "a", 1); status.Code(err) != codes.ResourceExhausted || time.Since(start) != 0 {
			t.Errorf("err = %v after %s", err, time.Since(start))
		}
	})
}

func TestLimiterTakesTokensBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](1, 10, 100)
		must(t, l.wait(t.Context(), "a", 10))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		wantStatus(t, l.wait(ctx, "a", 9), codes.Canceled, "context canceled")
		if d := took(t, func() error { return l.wait(t.Context(), "a", 1) }); d != 0 {
			t.Errorf("waited %s for a token that was given back", d)
		}
	})
}

// A flood of keys costs a bounded number of records, and does not end the memory
// of keys that were there before.
func TestLimiterMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		l := newLimiter[string](1, 4, most)
		ctx := t.Context()
		must(t, l.wait(ctx, "honest", 4))
		refused := 0
		for i := range 10 * most {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			if l.wait(short, fmt.Sprint(i), 1) != nil {
				refused++
			}
			cancel()
			if n := len(l.young) + len(l.old); n > 2*most {
				t.Fatalf("%d keys", n)
			}
		}
		if refused != 9*most+1-4 { // the crowd shares one bucket
			t.Errorf("%d of the crowd were refused", refused)
		}
		if d := took(t, func() error { return l.wait(ctx, "honest", 1) }); d != time.Second {
			t.Errorf("the flood made the limit forget: waited %s", d)
		}
		// What is full again is forgotten in time.
		for range 3 {
			time.Sleep(maxWait + 5*time.Second)
			must(t, l.wait(ctx, "later", 1))
		}
		if n := len(l.young) + len(l.old); n > 1 {
			t.Errorf("%d keys are left", n)
		}
	})
}

// Who makes up keys must not keep those out who join meanwhile.
func TestMadeUpKeysHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(Limits{Attestation: true})
		from := func(n int) context.Context {
			return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, byte(n), 0, 1)}})
		}
		must(t, l.join(from(200), "busy"))
		for i := range maxIdentities {
			ctx := from(i % 64)
			must(t, l.join(ctx, ""))
			must(t, l.join(ctx, fmt.Sprint("made up ", i)))
		}
		if d := took(t, func() error {
			var errs []error
			for i := range 100 {
				errs = append(errs, l.join(from(100), ""), l.join(from(100), fmt.Sprint("node ", i)))
			}
			return errors.Join(errs...)
		}); d > 0 {
			t.Errorf("100 nodes waited %s", d)
		}
		if d := took(t, func() error {
			var errs []error
			for range 10 {
				errs = append(errs, l.join(from(200), "busy"))
			}
			return errors.Join(errs...)
		}); d == 0 {
			t.Error("a key that was there before is not limited any more")
		}
	})
}

// A limit must not be forgotten while somebody waits for it.
func TestLimiterRemembersAcrossGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](1, 4, 100)
		ctx := t.Context()
		start := time.Now()
		n := 0
		for time.Since(start) < 10*maxWait {
			must(t, l.wait(ctx, "busy", 1))
			n++
		}
		if want := int(10*maxWait/time.Second) + 4; n > want+1 {
			t.Errorf("%d in %s, want %d", n, 10*maxWait, want)
		}
	})
}

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.77":              "192.0.2.0/24",
		"2001:db8:1:2:3::4":       "2001:db8:1::/48",
		"fe80::1%eth0":            "fe80::/48",
		"::ffff:192.0.2.77":       "::/48", // callers unmap first
		"255.255.255.255":         "255.255.255.0/24",
		"2001:db8:ffff:ffff::1:1": "2001:db8:ffff::/48",
	} {
		if got := network(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("network(%s) = %s, want %s", addr, got, want)
		}
	}
	if network(netip.Addr{}).IsValid() {
		t.Error("no address has a network")
	}
}

// A thousand nodes behind one address are not slowed down; one identity that
// hammers is.
func TestLimitsOfJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(Limits{Attestation: true})
		start := time.Now()
		for i := range 1000 {
			must(t, l.join(t.Context(), ""))
			must(t, l.join(t.Context(), fmt.Sprint("join_token:", i)))
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("a thousand joins take %s", d)
		}
		start = time.Now()
		for range attestBurst + 10 {
			must(t, l.join(t.Context(), "join_token:the same"))
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("ten more than the burst take %s", d)
		}
		// The backstop of the network.
		start = time.Now()
		for range networkAttestBurst + networkAttestRate {
			must(t, l.join(t.Context(), ""))
		}
		if d := time.Since(start); d < 900*time.Millisecond || d > 2*time.Second {
			t.Errorf("a flood of one network takes %s", d)
		}
	})
}

func TestLimitsSwitchedOff(t *testing.T) {
	l := newLimits(Limits{})
	for range 10 * networkAttestBurst {
		must(t, l.join(t.Context(), ""))
		must(t, l.join(t.Context(), "join_token:the same"))
	}
	must(t, l.sign(t.Context(), l.csr, Caller{ID: spiffeID("/a")}, 1<<20))
	var none *limits
	must(t, none.join(t.Context(), "x"))
	must(t, none.unary(t.Context(), "/x", Caller{}, nil))
}

func TestLimitedErrorSaysWhat(t *testing.T) {
	l := newLimits(Limits{Signing: true})
	err := errLimited("rejecting request", l.sign(t.Context(), l.csr, Caller{ID: spiffeID("/a")}, 501))
	wantStatus(t, err, codes.ResourceExhausted, "rejecting request: rate (501) exceeds burst size (500)")
	if errLimited("x", nil) != nil || !strings.Contains(errLimited("x", context.Canceled).Error(), "canceled") {
		t.Error("other errors are changed")
	}
}

// Who is banned while it waits for its turn is not served when that comes.
func TestBanEndsWait(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	g := &gate{guard: newGuard(r.deps), deps: r.deps, limits: newLimits(Limits{Signing: true})}
	queued := func() time.Duration {
		l := g.limits.csr
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.young[svid.ID] - time.Since(l.start)
	}
	for range 2 {
		g.limits.csr.take(svid.ID, signRate, maxWait)
	}
	c := g.begin(svidv1.SVID_BatchNewX509SVID_FullMethodName)
	c.caller = Caller{ID: svid.ID, Cert: svid.Certificates[0]}
	must(t, g.guard.authorize(t.Context(), c.method, c.caller))
	held := make(chan error, 1)
	go func() { // for two seconds
		held <- g.hold(t.Context(), c, &svidv1.BatchNewX509SVIDRequest{Params: make([]*svidv1.NewX509SVIDParams, signRate)})
	}()
	for queued() < 2*time.Second {
		runtime.Gosched() // until the call is in the queue
	}
	_, err := agentv1.NewAgentClient(r.local()).BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	if err := <-held; reason(err) != types.PermissionDeniedDetails_AGENT_BANNED {
		t.Errorf("err = %v", err)
	}
	if !strings.Contains(fmt.Sprint(c.attrs), "held_by_limit=") {
		t.Errorf("the log is not told of the wait: %v", c.attrs)
	}
}

func TestBatchBeyondTheBurst(t *testing.T) {
	r := newRigWith(t, func(d *Deps) { d.Limits.Signing = true })
	c := svidv1.NewSVIDClient(r.as(r.join()))
	_, err := c.BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{Params: slices.Repeat([]*svidv1.NewX509SVIDParams{{EntryId: "x"}}, 501)})
	wantStatus(t, err, codes.ResourceExhausted, "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)")
}
