package registration_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

var td = spiffeid.RequireTrustDomainFromString("one.test")

func valid() registration.Entry {
	return registration.Entry{
		ID:        "web-1",
		SPIFFEID:  spiffeid.RequireFromString("spiffe://one.test/web"),
		ParentID:  spiffeid.RequireFromString("spiffe://one.test/spire/agent/x"),
		Selectors: []registration.Selector{{Type: "unix", Value: "uid:1000"}},
	}
}

func TestParseSelector(t *testing.T) {
	got, err := registration.ParseSelector("docker:label:a:b")
	if want := (registration.Selector{Type: "docker", Value: "label:a:b"}); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "unix", ":x", "unix:"} {
		if _, err := registration.ParseSelector(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestMatching(t *testing.T) {
	a, b, c := registration.Selector{Type: "t", Value: "a"}, registration.Selector{Type: "t", Value: "b"}, registration.Selector{Type: "t", Value: "c"}
	set := registration.NewSelectorSet(a, b)
	if !set.HasAll([]registration.Selector{a}) || !set.HasAll([]registration.Selector{b, a}) || set.HasAll([]registration.Selector{a, c}) {
		t.Error("a workload matches exactly the entries whose selectors it has all of")
	}
	if diff := cmp.Diff([]registration.Selector{a, b}, registration.SortSelectors([]registration.Selector{b, a, b})); diff != "" {
		t.Error(diff)
	}
}

func TestExpired(t *testing.T) {
	now := time.Unix(1_800_000_000, 999)
	for expiry, want := range map[int64]bool{
		0: false, now.Unix() - 1: true, now.Unix(): true, now.Unix() + 1: false, math.MaxInt64: false,
	} {
		p := valid().Proto()
		p.ExpiresAt = expiry
		e, err := registration.FromProto(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Expired(now); got != want || e.Validate(td) != nil || e.Proto().ExpiresAt != expiry {
			t.Errorf("expiry %d: expired %t, want %t; %v, %d", expiry, got, want, e.Validate(td), e.Proto().ExpiresAt)
		}
	}
}

func TestKey(t *testing.T) {
	e := valid()
	e.Selectors = []registration.Selector{{Type: "t", Value: "a"}, {Type: "t", Value: "b"}}
	same := e
	same.Selectors = []registration.Selector{{Type: "t", Value: "b"}, {Type: "t", Value: "a"}, {Type: "t", Value: "a"}}
	same.ID, same.Hint = "other", "h"
	if e.Key() != same.Key() {
		t.Error("order and repetition of selectors, ID and hint must not count")
	}
	joined := e
	joined.Selectors = []registration.Selector{{Type: "t", Value: "at"}, {Type: "b", Value: "x"}}
	split := e
	split.Selectors = []registration.Selector{{Type: "t", Value: "a"}, {Type: "tb", Value: "x"}}
	if joined.Key() == split.Key() {
		t.Error("different selectors share a key")
	}
}

func TestValidate(t *testing.T) {
	if err := valid().Validate(td); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*registration.Entry)
		want   string
	}{
		"foreign ID":     {func(e *registration.Entry) { e.SPIFFEID = spiffeid.RequireFromString("spiffe://two.test/x") }, "not a member"},
		"no path":        {func(e *registration.Entry) { e.SPIFFEID = td.ID() }, "path cannot be empty"},
		"reserved":       {func(e *registration.Entry) { e.SPIFFEID = spiffeid.RequireFromString("spiffe://one.test/spire/server") }, "reserved"},
		"foreign parent": {func(e *registration.Entry) { e.ParentID = spiffeid.RequireFromString("spiffe://two.test/x") }, "parent"},
		"no selectors":   {func(e *registration.Entry) { e.Selectors = nil }, "selector list is empty"},
		"negative TTL":   {func(e *registration.Entry) { e.X509SVIDTTL = -time.Second }, "TTL"},
		"long hint":      {func(e *registration.Entry) { e.Hint = strings.Repeat("x", 1025) }, "hint"},
		"bad ID":         {func(e *registration.Entry) { e.ID = "a/b" }, "only letters"},
		"DNS":            {func(e *registration.Entry) { e.DNSNames = []string{"ok.test", "-bad.test"} }, "-bad"},
		"final dot":      {func(e *registration.Entry) { e.DNSNames = []string{"a.test."} }, "label is empty"},
		"DNS space":      {func(e *registration.Entry) { e.DNSNames = []string{"a b.test"} }, "a b"},
		"prefetch":       {func(e *registration.Entry) { e.StoreSVID, e.DisableX509SVIDPrefetch = true, true }, "exclude each other"},
		"store SVID": {func(e *registration.Entry) {
			e.StoreSVID = true
			e.Selectors = []registration.Selector{{Type: "a", Value: "x"}, {Type: "b", Value: "x"}}
		}, "selector types"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := valid()
			tt.change(&e)
			if err := e.Validate(td); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// What was read off the wire and is valid survives the way back and forth.
func FuzzEntry(f *testing.F) {
	seed := valid()
	seed.FederatesWith = []spiffeid.TrustDomain{spiffeid.RequireTrustDomainFromString("two.test")}
	seed.DNSNames, seed.Hint, seed.DisableX509SVIDPrefetch = []string{"a.test"}, "h", true
	seed.ExpiresAt, seed.CreatedAt = time.Unix(2000000000, 0), time.Unix(1700000000, 0)
	raw, err := proto.Marshal(seed.Proto())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p types.Entry
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		e, err := registration.FromProto(&p)
		if err != nil || e.Validate(td) != nil {
			return
		}
		again, err := registration.FromProto(e.Proto())
		if err != nil {
			t.Fatalf("a valid entry does not survive the wire: %v", err)
		}
		if again.Key() != e.Key() || again.Validate(td) != nil {
			t.Errorf("changed on the wire: %+v, then %+v", e, again)
		}
	})
}
