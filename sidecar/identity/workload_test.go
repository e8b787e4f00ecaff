package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
	"github.com/lanyard-mtls/lanyard/sidecar/identity"
)

func wait(t *testing.T, s identity.Source) *identity.Identity {
	t.Helper()
	i, err := s.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func hinted(svid *x509svid.SVID, hint string) *x509svid.SVID {
	svid.Hint = hint
	return svid
}

// Of several SVIDs ghostunnel always takes the first.
func TestGap09PicksTheSVIDByIDOrHint(t *testing.T) {
	ca := testca.New(t, "one.test")
	first := hinted(ca.SVID(t, "spiffe://one.test/a"), "internal")
	second := hinted(ca.SVID(t, "spiffe://one.test/b"), "external")
	api := workloadtest.Start(t, []*x509svid.SVID{first, second}, ca.Bundle())
	a, b := first.ID, second.ID
	for name, tt := range map[string]struct {
		id   spiffeid.ID
		hint string
		want spiffeid.ID
	}{
		"neither": {want: a}, "ID": {id: b, want: b}, "hint": {hint: "external", want: b}, "first's hint": {hint: "internal", want: a},
		"both": {id: b, hint: "external", want: b},
	} {
		t.Run(name, func(t *testing.T) {
			s := load(t, identity.Config{WorkloadAPI: api.Addr(), SPIFFEID: tt.id, Hint: tt.hint}, identity.Deps{})
			run(t, s)
			if got := wait(t, s).ID(); got != tt.want {
				t.Errorf("picked %s, want %s", got, tt.want)
			}
		})
	}
	for name, cfg := range map[string]identity.Config{
		`offers spiffe://one.test/a with hint "internal", spiffe://one.test/b with hint "external", not hint "other"`: {Hint: "other"},
		`not spiffe://one.test/b with hint "internal"`:                                                                {SPIFFEID: b, Hint: "internal"},
		`not spiffe://one.test/c`: {SPIFFEID: spiffeid.RequireFromString("spiffe://one.test/c")},
	} {
		cfg.WorkloadAPI = api.Addr()
		s := load(t, cfg, identity.Deps{})
		run(t, s)
		until(t, "the refusal", func() bool { st := s.Status(); return st.Connected && st.Err != nil })
		if err := s.Status().Err; !errors.Is(err, identity.ErrNone) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

// ghostunnel stops asking for ever when a stream ends with one of these, and goes on with an SVID that expires unseen.
func TestGap03StreamsThatEndAreOpenedAgain(t *testing.T) {
	ca := testca.New(t, "one.test")
	for _, code := range []codes.Code{codes.Canceled, codes.InvalidArgument} {
		t.Run(code.String(), func(t *testing.T) {
			api := workloadtest.Start(t, []*x509svid.SVID{ca.SVID(t, "spiffe://one.test/a")}, ca.Bundle())
			s := load(t, identity.Config{WorkloadAPI: api.Addr()}, identity.Deps{})
			run(t, s)
			held := wait(t, s)
			api.Fail(code)
			until(t, "the lost stream", func() bool { st := s.Status(); return !st.Connected && st.ConnectionErr != nil })
			if current(t, s) != held {
				t.Error("the SVID held was dropped")
			}
			next := ca.SVID(t, "spiffe://one.test/a")
			api.Set(t, []*x509svid.SVID{next}, ca.Bundle())
			until(t, "the next SVID", func() bool { return current(t, s).Certificate().Leaf.Equal(next.Certificates[0]) })
		})
	}
}

// ghostunnel has nothing to tell about its identity.
func TestGap04StatusTellsTheIdentity(t *testing.T) {
	ca, other := testca.New(t, "one.test"), testca.New(t, "two.test", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	svid := ca.SVID(t, "spiffe://one.test/a")
	api := workloadtest.Start(t, []*x509svid.SVID{svid}, ca.Bundle(), other.Bundle())
	s := load(t, identity.Config{WorkloadAPI: api.Addr()}, identity.Deps{})
	if st := s.Status(); !errors.Is(st.Err, identity.ErrNone) || st.Source != "Workload API "+api.Addr() || st.Connected {
		t.Errorf("before the first answer: %+v", st)
	}
	run(t, s)
	wait(t, s)
	st := s.Status()
	leaf := svid.Certificates[0]
	if st.SPIFFEID != svid.ID.String() || !st.NotAfter.Equal(leaf.NotAfter) || !st.NotBefore.Equal(leaf.NotBefore) ||
		!st.Connected || st.Err != nil || st.LastUpdate.IsZero() {
		t.Errorf("status %+v", st)
	}
	if len(st.Bundles) != 2 || st.Bundles[0].TrustDomain != "one.test" || !st.Bundles[1].NotAfter.Equal(other.Cert.NotAfter) || st.Bundles[1].Updated.IsZero() {
		t.Errorf("bundles %+v", st.Bundles)
	}
	api.Stop()
	until(t, "the lost stream", func() bool { st := s.Status(); return !st.Connected && st.ConnectionErr != nil })
	if st := s.Status(); st.Err != nil || st.SPIFFEID == "" {
		t.Errorf("status %+v", st)
	}
}

func TestExpiredIsToldFromNone(t *testing.T) {
	ca := testca.New(t, "one.test")
	expired := ca.SVID(t, "spiffe://one.test/a", testca.Lifetime(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)))
	api := workloadtest.Start(t, []*x509svid.SVID{expired}, ca.Bundle())
	s := load(t, identity.Config{WorkloadAPI: api.Addr()}, identity.Deps{})
	run(t, s)
	until(t, "the expired SVID", func() bool { return s.Status().Connected })
	if _, err := s.Current(); !errors.Is(err, identity.ErrExpired) || errors.Is(err, identity.ErrNone) {
		t.Errorf("error %v", err)
	}
	if st := s.Status(); !errors.Is(st.Err, identity.ErrExpired) || st.SPIFFEID == "" {
		t.Errorf("status %+v", st)
	}
	// What is shown to nobody may be expired: the bundles verify peers all the same.
	s = load(t, identity.Config{WorkloadAPI: api.Addr(), None: true}, identity.Deps{})
	run(t, s)
	if i := wait(t, s); i.Certificate() != nil || !i.IsSPIFFE() || i.ID() != expired.ID {
		t.Errorf("%+v", i)
	}
}

// A bundle or SVID that does not parse never replaces a good one.
func TestUnusableAnswersKeepTheIdentity(t *testing.T) {
	ca := testca.New(t, "one.test")
	svid := ca.SVID(t, "spiffe://one.test/a")
	api := workloadtest.Start(t, []*x509svid.SVID{svid}, ca.Bundle())
	s := load(t, identity.Config{WorkloadAPI: api.Addr()}, identity.Deps{})
	run(t, s)
	held := wait(t, s)
	for name, spoil := range map[string]func(*workloadpb.X509SVIDResponse){
		"SVID":             func(r *workloadpb.X509SVIDResponse) { r.Svids[0].X509Svid = []byte("garbage") },
		"bundle":           func(r *workloadpb.X509SVIDResponse) { r.Svids[0].Bundle = []byte("garbage") },
		"federated bundle": func(r *workloadpb.X509SVIDResponse) { r.FederatedBundles["two.test"] = []byte("garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			resp := workloadtest.Response(t, []*x509svid.SVID{ca.SVID(t, "spiffe://one.test/a")}, ca.Bundle())
			spoil(resp)
			api.SetRaw(resp)
			until(t, "the discarded answer", func() bool { return s.Status().ConnectionErr != nil })
			if current(t, s) != held {
				t.Error("the good one was replaced")
			}
			// The same answer as before makes no new version either: sessions go on.
			api.Set(t, []*x509svid.SVID{svid}, ca.Bundle())
			until(t, "the good answer", func() bool { return s.Status().ConnectionErr == nil })
			if current(t, s) != held {
				t.Error("the same answer made a new version")
			}
		})
	}
}
