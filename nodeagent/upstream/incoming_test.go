package upstream

import (
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// Whatever an issuer sends, what is handed on is in order, of this trust domain,
// and has a bundle.
func FuzzIncoming(f *testing.F) {
	ca := testca.New(f, "example.org")
	marshal := func(resps ...*changesv1.WatchResponse) (out []byte) {
		for _, resp := range resps {
			b, err := proto.Marshal(resp)
			if err != nil {
				f.Fatal(err)
			}
			out = append(append(out, byte(len(b)>>8), byte(len(b))), b...)
		}
		return out
	}
	entry := func(id, td string) *types.Entry {
		return &types.Entry{
			Id: id, SpiffeId: &types.SPIFFEID{TrustDomain: td, Path: "/" + id}, ParentId: &types.SPIFFEID{TrustDomain: td, Path: "/p"},
			Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}},
		}
	}
	own := &types.Bundle{TrustDomain: "example.org", X509Authorities: []*types.X509Certificate{{Asn1: ca.Cert.Raw, Tainted: true}}, SequenceNumber: 3}
	f.Add(marshal(
		&changesv1.WatchResponse{Reset_: true, Entries: []*types.Entry{entry("b", "example.org"), entry("a", "example.org")}},
		&changesv1.WatchResponse{Bundles: []*types.Bundle{own}, Complete: true, Resume: []byte("1")},
		&changesv1.WatchResponse{RemovedEntryIds: []string{"a", "x"}, Entries: []*types.Entry{entry("c", "evil.org")}, RemovedBundles: []string{"example.org"}, Complete: true},
		&changesv1.WatchResponse{Entries: []*types.Entry{entry("a", "example.org")}, Reset_: true, Complete: true},
	))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Open(Config{TrustDomain: ca.TrustDomain, DataDir: dir, ServerAddress: "127.0.0.1:1", TrustBundle: ca.Bundle(), Attestor: &stubAttestor{}, MemoryKeys: true})
		if err != nil {
			t.Fatal(err)
		}
		c.id.bundle = ca.Bundle()
		w := newWatcher(c, func(u Update) { checkUpdate(t, ca.TrustDomain, u) })
		w.incoming = newIncoming(true)
		s := &stream{svid: &x509svid.SVID{ID: spiffeid.RequireFromPath(ca.TrustDomain, "/spire/agent/a")}}
		for len(b) >= 2 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			var resp changesv1.WatchResponse
			if proto.Unmarshal(b[2:2+n], &resp) == nil {
				if err := w.take(s, &resp); err != nil {
					t.Fatal(err)
				}
			}
			b = b[2+n:]
		}
		if len(w.resume) > maxResume {
			t.Errorf("keeps a token of %d bytes", len(w.resume))
		}
	})
}

func checkUpdate(t *testing.T, td spiffeid.TrustDomain, u Update) {
	t.Helper()
	if u.Bundle == nil || u.Bundle.Empty() || u.Bundle.TrustDomain() != td {
		t.Errorf("bundle %v", u.Bundle)
	}
	for domain, b := range u.Federated {
		if b == nil || b.TrustDomain() != domain || domain == td {
			t.Errorf("federated bundle of %s: %v", domain, b)
		}
	}
	for domain, b := range u.JWT {
		if b == nil || b.TrustDomain() != domain {
			t.Errorf("JWT bundle of %s: %v", domain, b)
		}
	}
	if u.Whole && u.Removed != nil || !slices.IsSorted(u.Removed) || slices.Contains(u.Removed, "") {
		t.Errorf("removed %q", u.Removed)
	}
	last := ""
	for _, e := range u.Entries {
		if e.ID <= last || len(e.Selectors) == 0 || slices.Contains(u.Removed, e.ID) || !e.SPIFFEID.MemberOf(td) && e.Template.TrustDomain() != td {
			t.Errorf("entry %+v after %q", e, last)
		}
		last = e.ID
	}
}

// What did not change is the same, so that nobody has to compare it again.
func TestBundlesThatDidNotChangeAreTheSame(t *testing.T) {
	own, known, other := testca.New(t, "example.org"), testca.New(t, "known.org"), testca.New(t, "other.org")
	read := func(ca *testca.CA) bundle { return bundle{x509: ca.Bundle()} }
	all := func(spiffeid.TrustDomain) bool { return true }
	first := bundles{}.with(own.TrustDomain, map[spiffeid.TrustDomain]bundle{own.TrustDomain: read(own), known.TrustDomain: read(known)}, all)
	again := first.with(own.TrustDomain, map[spiffeid.TrustDomain]bundle{own.TrustDomain: read(own), known.TrustDomain: read(known)}, all)
	if again.own.x509 != first.own.x509 || !sameMap(again.federated, first.federated) {
		t.Error("the same bundles are others")
	}
	more := again.with(own.TrustDomain, map[spiffeid.TrustDomain]bundle{other.TrustDomain: read(other)}, all)
	if len(more.federated) != 2 || more.federated[known.TrustDomain] != first.federated[known.TrustDomain] || len(first.federated) != 1 {
		t.Errorf("federated %v, before %v", more.federated, first.federated)
	}
	less := more.with(own.TrustDomain, map[spiffeid.TrustDomain]bundle{known.TrustDomain: {}}, all)
	if len(less.federated) != 1 || less.federated[other.TrustDomain] == nil {
		t.Errorf("federated %v", less.federated)
	}
	if none := less.with(own.TrustDomain, nil, func(spiffeid.TrustDomain) bool { return false }); len(none.federated) != 0 || none.own.x509 != first.own.x509 {
		t.Errorf("bundles %+v", none)
	}
}

func sameMap(a, b map[spiffeid.TrustDomain]*x509bundle.Bundle) bool {
	b[spiffeid.TrustDomain{}] = nil
	_, same := a[spiffeid.TrustDomain{}]
	delete(b, spiffeid.TrustDomain{})
	return same
}

// A poll of 10,000 entries that did not change tells the caches of nothing.
func TestSyncerRemembersLittle(t *testing.T) {
	s := syncer{reader: entryReader{td: spiffeid.RequireTrustDomainFromString("example.org"), log: discard()}}
	list := func(hint string) []*types.Entry {
		var ps []*types.Entry
		for _, id := range []string{"a", "b"} {
			e := registration.Entry{
				ID: id, SPIFFEID: spiffeid.RequireFromPath(s.reader.td, "/"+id), ParentID: spiffeid.RequireFromPath(s.reader.td, "/p"), Hint: hint,
				Selectors: []registration.Selector{{Type: "unix", Value: "uid:1"}},
			}
			ps = append(ps, e.Proto())
		}
		return append(ps, &types.Entry{Id: "bad"})
	}
	take := func(ps []*types.Entry) *synced {
		got := s.begin()
		if err := s.compareAll(got, ps); err != nil {
			t.Fatal(err)
		}
		s.finish(got)
		s.keep(got)
		return got
	}
	for i, test := range []struct {
		list             []*types.Entry
		whole            bool
		entries, removed int
	}{{list("x"), true, 2, 1}, {list("x"), false, 0, 0}, {list("y"), false, 2, 0}, {list("y")[:1], false, 0, 1}, {nil, false, 0, 1}} {
		if got := take(test.list); got.whole != test.whole || len(got.entries) != test.entries || len(got.removed) != test.removed {
			t.Errorf("%d: whole %t, %d entries, %d removed", i, got.whole, len(got.entries), len(got.removed))
		}
	}
}
