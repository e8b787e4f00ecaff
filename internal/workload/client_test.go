package workload_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

const webID = "spiffe://one.test/web"

func TestReceivesAndRotates(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "two.test")
	first, second := ca.SVID(t, webID), ca.SVID(t, webID)
	s := workloadtest.Start(t, []*x509svid.SVID{first}, ca.Bundle(), other.Bundle())
	c := start(t, s)
	state := until(t, c, "the first SVID", holds(first))
	if len(state.Context.Bundles) != 2 {
		t.Errorf("%d bundles, want 2", len(state.Context.Bundles))
	}
	if state.Updated.IsZero() {
		t.Errorf("updated %v", state.Updated)
	}
	s.Set(t, []*x509svid.SVID{second}, ca.Bundle())
	state = until(t, c, "the second SVID", holds(second))
	// An answer is complete: what it does not name is withdrawn.
	if _, ok := state.Context.Bundles[other.TrustDomain]; ok {
		t.Error("the withdrawn federated bundle is still trusted")
	}
	if s.Calls() != 1 {
		t.Errorf("%d streams, want 1", s.Calls())
	}
}

// Whatever ends the stream, the client keeps what it holds and comes back;
// go-spiffe's gives up for ever on the first two.
func TestComesBackAfterEveryStatus(t *testing.T) {
	ca := testca.New(t, "one.test")
	for _, code := range []codes.Code{codes.Canceled, codes.InvalidArgument, codes.Unavailable, codes.Unimplemented, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			first, second := ca.SVID(t, webID), ca.SVID(t, webID)
			s := workloadtest.Start(t, []*x509svid.SVID{first}, ca.Bundle())
			c := start(t, s)
			until(t, c, "the first SVID", holds(first))
			s.Fail(code)
			state := until(t, c, "the lost stream", func(s workload.State) bool { return !s.Connected && status.Code(s.Err) == code })
			if !holds(first)(state) {
				t.Error("the SVID was dropped")
			}
			s.Set(t, []*x509svid.SVID{second}, ca.Bundle())
			until(t, c, "the second SVID", func(s workload.State) bool { return holds(second)(s) && connected(s) })
		})
	}
}

func TestPermissionDeniedDropsTheIdentity(t *testing.T) {
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, webID)
	s := workloadtest.Start(t, []*x509svid.SVID{svid}, ca.Bundle())
	c := start(t, s)
	until(t, c, "the SVID", holds(svid))
	s.Fail(codes.PermissionDenied)
	state := until(t, c, "the denial", workload.State.Denied)
	if state.Context != nil {
		t.Error("the identity is still held")
	}
	if _, err := c.State().Select(spiffeid.ID{}, time.Now()); !errors.Is(err, workload.ErrNoIdentity) || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("SVID: %v", err)
	}
	s.Set(t, []*x509svid.SVID{svid}, ca.Bundle())
	until(t, c, "the SVID again", holds(svid))
}

func TestUnusableAnswerKeepsTheGoodOne(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "two.test")
	good, spare := ca.SVID(t, webID), ca.SVID(t, webID)
	one := func(f func(*workloadpb.X509SVIDResponse)) *workloadpb.X509SVIDResponse {
		resp := workloadtest.Response(t, []*x509svid.SVID{spare}, ca.Bundle())
		f(resp)
		return resp
	}
	tests := map[string]*workloadpb.X509SVIDResponse{
		"empty":            {},
		"garbage SVID":     one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].X509Svid = []byte("garbage") }),
		"no SVID bytes":    one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].X509Svid = nil }),
		"garbage key":      one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].X509SvidKey = []byte{1} }),
		"another's key":    one(func(r *workloadpb.X509SVIDResponse) { _, r.Svids[0].X509SvidKey, _ = good.MarshalRaw() }),
		"other SPIFFE ID":  one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].SpiffeId = "spiffe://one.test/db" }),
		"no bundle":        one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].Bundle = nil }),
		"garbage bundle":   one(func(r *workloadpb.X509SVIDResponse) { r.Svids[0].Bundle = []byte("garbage") }),
		"second SVID bad":  one(func(r *workloadpb.X509SVIDResponse) { r.Svids = append(r.Svids, &workloadpb.X509SVID{}) }),
		"federated name":   one(func(r *workloadpb.X509SVIDResponse) { r.FederatedBundles["http://x"] = other.Cert.Raw }),
		"federated bundle": one(func(r *workloadpb.X509SVIDResponse) { r.FederatedBundles["spiffe://two.test"] = []byte("x") }),
	}
	s := workloadtest.Start(t, []*x509svid.SVID{good}, ca.Bundle())
	c := start(t, s)
	until(t, c, "the good SVID", connected)
	for name, resp := range tests {
		t.Run(name, func(t *testing.T) {
			version := c.State().Version
			s.Set(t, []*x509svid.SVID{good}, ca.Bundle())
			before := until(t, c, "the good SVID", func(s workload.State) bool { return connected(s) && s.Version > version })
			s.SetRaw(resp)
			after := until(t, c, "the discarded answer", func(s workload.State) bool { return s.Err != nil })
			if after.Context != before.Context || after.Version != before.Version {
				t.Error("the unusable answer replaced the good one")
			}
			if !strings.Contains(after.Err.Error(), "discarded") {
				t.Errorf("error: %v", after.Err)
			}
		})
	}
}

func TestSlowStartAndRestart(t *testing.T) {
	ca := testca.New(t, "one.test")
	first, second := ca.SVID(t, webID), ca.SVID(t, webID)
	s := workloadtest.New(t)
	c := start(t, s)
	until(t, c, "a failed try", func(s workload.State) bool { return s.Err != nil })
	if _, err := c.State().Select(spiffeid.ID{}, time.Now()); !errors.Is(err, workload.ErrNoIdentity) {
		t.Errorf("SVID before the agent: %v", err)
	}
	s.Set(t, []*x509svid.SVID{first}, ca.Bundle())
	s.Start(t)
	until(t, c, "the first SVID", holds(first))
	s.Stop()
	state := until(t, c, "the lost stream", func(s workload.State) bool { return !s.Connected })
	if !holds(first)(state) {
		t.Error("the SVID was dropped with the stream")
	}
	s.Set(t, []*x509svid.SVID{second}, ca.Bundle())
	s.Start(t)
	until(t, c, "the second SVID", holds(second))
}

func TestExpiredSVID(t *testing.T) {
	ca := testca.New(t, "one.test")
	now := time.Now()
	short := ca.SVID(t, webID, testca.Lifetime(now.Add(-time.Minute), now.Add(-time.Second)))
	fresh := ca.SVID(t, webID)
	s := workloadtest.Start(t, []*x509svid.SVID{short}, ca.Bundle())
	c := start(t, s)
	until(t, c, "the SVID", holds(short))
	if _, err := c.State().Select(spiffeid.ID{}, time.Now()); !errors.Is(err, workload.ErrExpired) {
		t.Errorf("SVID: %v, want ErrExpired", err)
	}
	// The stream is asked anew by itself: the agent may be alive on paper only.
	until(t, c, "a renewed stream", func(state workload.State) bool { return s.Calls() > 1 })
	s.Set(t, []*x509svid.SVID{fresh}, ca.Bundle())
	until(t, c, "the fresh SVID", holds(fresh))
}

func TestSelect(t *testing.T) {
	ca := testca.New(t, "one.test")
	web, db := ca.SVID(t, webID), ca.SVID(t, "spiffe://one.test/db")
	s := workloadtest.Start(t, []*x509svid.SVID{web, db}, ca.Bundle())
	c := start(t, s)
	until(t, c, "the SVIDs", connected)
	for _, want := range []*x509svid.SVID{web, db} {
		if got, err := c.State().Select(want.ID, time.Now()); err != nil || got.ID != want.ID {
			t.Errorf("SVID of %s: %v, %v", want.ID, got, err)
		}
	}
	_, err := c.State().Select(spiffeid.RequireFromString("spiffe://one.test/none"), time.Now())
	if !errors.Is(err, workload.ErrNoIdentity) || !strings.Contains(err.Error(), "offers spiffe://one.test/web, spiffe://one.test/db, not spiffe://one.test/none") {
		t.Errorf("unknown ID: %v", err)
	}
}

func TestRunLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	ca := testca.New(t, "one.test")
	t.Run("run", func(t *testing.T) {
		s := workloadtest.Start(t, []*x509svid.SVID{ca.SVID(t, webID)}, ca.Bundle())
		until(t, start(t, s), "the SVID", connected)
	})
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}
