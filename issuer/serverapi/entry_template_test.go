package serverapi

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func templateEntry(parent, path string) *types.Entry {
	e := plainEntry(path)
	e.ParentId.Path = parent
	return e
}

func TestTemplatesReachOnlyAgentsThatKnowThem(t *testing.T) {
	r := newEntryRig(t)
	agent := r.join()
	made := r.create(templateEntry(agent.ID.Path(), "/docker/{{docker:label:app}}"), templateEntry(agent.ID.Path(), "/plain"))
	c := entryv1.NewEntryClient(r.as(agent))
	want := func(ctx func() []*types.Entry, ids ...string) {
		t.Helper()
		slices.Sort(ids)
		if got := idsOf(ctx()); !slices.Equal(got, ids) {
			t.Errorf("got %v, want %v", got, ids)
		}
	}
	get := func() []*types.Entry {
		resp, err := c.GetAuthorizedEntries(t.Context(), &entryv1.GetAuthorizedEntriesRequest{})
		must(t, err)
		return resp.Entries
	}
	knowing := func() []*types.Entry {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "lanyard-templates", "1")
		resp, err := c.GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{})
		must(t, err)
		return resp.Entries
	}
	want(get, made[1].Id)
	want(knowing, made[0].Id, made[1].Id)
	want(func() []*types.Entry {
		return recvSync(t, startSync(t, c, &entryv1.SyncAuthorizedEntriesRequest{})).Entries
	}, made[1].Id)

	// Instances are to be had by entry ID and path, and nothing beside them.
	svids := svidv1.NewSVIDClient(r.as(agent))
	for id, path := range map[string]string{
		made[0].Id + "~/docker/web":        "/docker/web",
		made[0].Id + "~/docker/web/x":      "",
		made[0].Id + "~/docker":            "",
		made[0].Id + "~/docker/..":         "",
		made[0].Id + "~/other":             "",
		made[0].Id + "~":                   "",
		made[0].Id:                         "",
		made[1].Id + "~/plain":             "",
		made[0].Id + "~/docker/{{unix:x}}": "",
	} {
		resp, err := svids.BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{
			Params: []*svidv1.NewX509SVIDParams{{EntryId: id, Csr: newCSR(t, newKey(t))}},
		})
		must(t, err)
		if got := resp.Results[0].GetSvid().GetId().GetPath(); got != path {
			t.Errorf("%s made %q, want %q: %v", id, got, path, resp.Results[0].Status)
		}
		if path == "" {
			wantItem(t, resp.Results[0].Status, codes.NotFound, "entry not found or not authorized")
		}
	}
}

func TestTemplateReservesItsPrefix(t *testing.T) {
	r := newEntryRigWith(t)
	tmpl := r.create(plainEntry("/docker/{{docker:label:app}}"))[0]
	plain := r.create(plainEntry("/u"))[0]
	refused := func(path string, code codes.Code, text string) {
		t.Helper()
		resp, err := r.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{plainEntry(path)}})
		must(t, err)
		wantItem(t, resp.Results[0].Status, code, text)
	}
	for _, path := range []string{"/docker", "/docker/web", "/docker/web/deep"} {
		refused(path, codes.FailedPrecondition, fmt.Sprintf("failed to create entry: spiffe://lanyard.test%s: reserved for the ID template spiffe://lanyard.test/docker/{{docker:label:app}} of entry %s: choose an ID that is not at or below /docker", path, tmpl.Id))
	}
	refused("/docker/sub/{{unix:user}}", codes.FailedPrecondition, fmt.Sprintf("failed to create entry: ID template spiffe://lanyard.test/docker/sub/{{unix:user}}: reserved: its prefix /docker/sub is for it alone, but entry %s has spiffe://lanyard.test/docker/{{docker:label:app}}", tmpl.Id))
	refused("/u/{{unix:user}}", codes.FailedPrecondition, fmt.Sprintf("failed to create entry: ID template spiffe://lanyard.test/u/{{unix:user}}: reserved: its prefix /u is for it alone, but entry %s has spiffe://lanyard.test/u", plain.Id))
	refused("/adm/{{unix:user}}", codes.InvalidArgument, "failed to convert entry: ID template spiffe://lanyard.test/adm/{{unix:user}}: its prefix /adm has spiffe://lanyard.test/adm/root of admin_ids below it")
	refused("/docker/{{docker:label:app}}", codes.AlreadyExists, "similar entry already exists")
	refused("/x/{{unix:user}}y", codes.InvalidArgument, `failed to convert entry: invalid spiffe ID: ID template "/x/{{unix:user}}y": "y" follows a hole: a hole is a whole segment of the path`)
	r.create(plainEntry("/dockerx"))

	// An update is no way around, in either direction.
	mask := &types.EntryMask{SpiffeId: true}
	moved := plainEntry("/docker/web")
	moved.Id = plain.Id
	if st := r.update(moved, mask).Status; codes.Code(st.Code) != codes.FailedPrecondition {
		t.Error(st)
	}
	moved.SpiffeId.Path = "/free/{{unix:user}}"
	wantItem(t, r.update(moved, mask).Status, codes.OK, "OK")
	refused("/free/x", codes.FailedPrecondition, fmt.Sprintf("failed to create entry: spiffe://lanyard.test/free/x: reserved for the ID template spiffe://lanyard.test/free/{{unix:user}} of entry %s: choose an ID that is not at or below /free", plain.Id))
	moved.SpiffeId.Path = "/u"
	wantItem(t, r.update(moved, mask).Status, codes.OK, "OK")
	r.create(plainEntry("/free/x"))

	// By its template an entry is found, and without it the prefix is free.
	found, err := r.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{BySpiffeId: tmpl.SpiffeId}})
	must(t, err)
	if len(found.Entries) != 1 || found.Entries[0].Id != tmpl.Id {
		t.Errorf("found %v", found.Entries)
	}
	deleted, err := r.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{tmpl.Id}})
	must(t, err)
	wantItem(t, deleted.Results[0].Status, codes.OK, "OK")
	r.create(plainEntry("/docker/web"))
}

func newEntryRigWith(t *testing.T) entryRig {
	t.Helper()
	r := newRigWith(t, func(d *Deps) { d.AdminIDs = append(d.AdminIDs, spiffeID("/adm/root")) })
	return entryRig{r, entryv1.NewEntryClient(r.local())}
}
