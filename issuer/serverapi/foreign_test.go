package serverapi

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

const otherAdmin = "spiffe://other.test/admin"

// otherDomain is a trust domain whose /admin is in admin_ids.
func otherAdmins(d *Deps) {
	d.AdminIDs = append(d.AdminIDs, spiffeid.RequireFromString(otherAdmin))
}

// federate stores the bundle of another trust domain.
func (r *rig) federate(td string, cas ...*testca.CA) {
	r.tb.Helper()
	b := &types.Bundle{TrustDomain: td}
	for _, ca := range cas {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: ca.Cert.Raw})
	}
	rev, err := r.deps.Store.SetFederatedBundle(r.tb.Context(), b, store.ModeSet)
	must(r.tb, err)
	must(r.tb, r.deps.Registry.Wait(r.tb.Context(), rev))
}

func list(t *testing.T, conn grpc.ClientConnInterface) error {
	t.Helper()
	_, err := agentv1.NewAgentClient(conn).ListAgents(t.Context(), &agentv1.ListAgentsRequest{})
	return err
}

// An administrator of another trust domain is verified with the bundle of that
// domain, and with no other.
func TestForeignAdmin(t *testing.T) {
	r := newRigWith(t, otherAdmins)
	other := testca.New(t, "other.test")
	admin := other.SVID(t, otherAdmin)
	if err := list(t, r.as(admin)); status.Code(err) != codes.Unavailable {
		t.Errorf("with no bundle: %v", err)
	}
	r.federate("third.test", other) // the right certificate in the wrong bundle
	if err := list(t, r.as(admin)); status.Code(err) != codes.Unavailable {
		t.Errorf("with the bundle of a third trust domain: %v", err)
	}
	r.federate("other.test", other)
	conn := r.as(admin)
	must(t, list(t, conn))

	own := r.sign(spiffeID("/admin"))
	for name, svid := range map[string]*x509svid.SVID{
		"not in admin_ids":                   other.SVID(t, "spiffe://other.test/user"),
		"ours, by another's authority":       other.SVID(t, "spiffe://lanyard.test/admin"),
		"another authority of the same name": testca.New(t, "other.test").SVID(t, otherAdmin),
		"another trust domain":               testca.New(t, "third.test").SVID(t, "spiffe://third.test/admin"),
		"theirs, with our chain":             {Certificates: own.Certificates, PrivateKey: admin.PrivateKey},
	} {
		if err := list(t, r.as(svid)); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, want := range []string{"which admin_ids name: federate with it", "none of admin_ids is of it", "not in admin_ids"} {
		// A client knows that it is refused before the line is written.
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(r.log.String(), want); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("the log has no %q", want)
			}
		}
	}

	// A foreign administrator is no agent and no workload of ours.
	_, err := entryv1.NewEntryClient(conn).GetAuthorizedEntries(t.Context(), &entryv1.GetAuthorizedEntriesRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("as agent: %v", err)
	}

	// On an open connection, too, the bundle of now decides.
	r.federate("other.test", other, testca.New(t, "other.test"))
	must(t, list(t, conn))
	r.federate("other.test", testca.New(t, "other.test"))
	if err := list(t, conn); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with another bundle: %v", err)
	}
	r.federate("other.test", other)
	must(t, list(t, conn))
	rev, err := r.deps.Store.DeleteFederatedBundle(t.Context(), spiffeid.RequireTrustDomainFromString("other.test"), store.DeleteRestrict)
	must(t, err)
	must(t, r.deps.Registry.Wait(t.Context(), rev))
	if err := list(t, conn); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with no bundle any more: %v", err)
	}
}

// An authority that leaves our own bundle ends the calls of those it signed for,
// without a new connection.
func TestRevokedAuthorityEndsCalls(t *testing.T) {
	r := newRig(t)
	conn := r.as(r.sign(adminID))
	must(t, list(t, conn))
	rev, err := r.deps.Store.UpdateCA(t.Context(), func(s *store.CAState) error {
		s.Bundle.X509Authorities = []*types.X509Certificate{{Asn1: testca.New(t, "lanyard.test").Cert.Raw}}
		return nil
	})
	must(t, err)
	must(t, r.deps.Registry.Wait(t.Context(), rev))
	if err := list(t, conn); status.Code(err) != codes.Unauthenticated {
		t.Errorf("err = %v", err)
	}
}

// An expired certificate gives no right on a connection that is still open, and
// leaves what anyone may do.
func TestExpiredAdmin(t *testing.T) {
	r := newRig(t)
	r.entry(registration.Entry{SPIFFEID: spiffeID("/operator"), ParentID: spiffeID("/spire/server"), Admin: true})
	for _, id := range []spiffeid.ID{adminID, spiffeID("/operator")} {
		r.ahead.Store(0)
		conn := r.as(r.sign(id))
		must(t, list(t, conn))
		r.ahead.Store(int64(61 * time.Minute))
		if err := list(t, conn); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", id, err)
		}
		_, err := bundlev1.NewBundleClient(conn).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
		must(t, err)
	}
}

// A ban ends a stream that was begun before it.
func TestBanEndsOpenStream(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	for i := range syncPage + 1 {
		r.entry(registration.Entry{SPIFFEID: spiffeID("/w"), ParentID: svid.ID, Selectors: []registration.Selector{{Type: "unix", Value: "uid:" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)}}})
	}
	stream, err := entryv1.NewEntryClient(r.as(svid)).SyncAuthorizedEntries(t.Context())
	must(t, err)
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{}))
	page, err := stream.Recv()
	must(t, err)
	if len(page.EntryRevisions) == 0 {
		t.Fatalf("page = %v", page)
	}
	ids := []string{page.EntryRevisions[0].Id}
	for page.More {
		page, err = stream.Recv()
		must(t, err)
	}
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: ids}))
	_, err = stream.Recv()
	must(t, err)
	_, err = agentv1.NewAgentClient(r.local()).BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: registration.IDProto(svid.ID)})
	must(t, err)
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: ids}))
	_, err = stream.Recv()
	if status.Code(err) != codes.PermissionDenied || reason(err) != types.PermissionDeniedDetails_AGENT_BANNED {
		t.Errorf("err = %v, reason %s", err, reason(err))
	}
}
