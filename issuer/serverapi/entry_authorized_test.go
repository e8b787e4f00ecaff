package serverapi

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// agentEntries joins an agent, gives it n entries and returns its client and
// their IDs in order.
func (r entryRig) agentEntries(n int, selectors ...registration.Selector) (entryv1.EntryClient, []string) {
	r.t.Helper()
	svid := r.join()
	entries := make([]registration.Entry, n)
	ids := make([]string, n)
	for i := range entries {
		ids[i] = fmt.Sprintf("%06d", i)
		entries[i] = registration.Entry{
			ID: ids[i], SPIFFEID: spiffeID("/w" + ids[i]), ParentID: svid.ID,
			Selectors: append([]registration.Selector{{Type: "unix", Value: "uid:1"}}, selectors...),
		}
	}
	results, rev, err := r.deps.Store.CreateEntries(r.t.Context(), entries)
	must(r.t, err)
	for _, result := range results {
		must(r.t, result.Err)
	}
	must(r.t, r.deps.Registry.Wait(r.t.Context(), rev))
	return entryv1.NewEntryClient(r.as(svid)), ids
}

// agentMask is what SPIRE's agent asks for.
var agentMask = &types.EntryMask{
	SpiffeId: true, Selectors: true, FederatesWith: true, Admin: true, Downstream: true, RevisionNumber: true,
	StoreSvid: true, Hint: true, AdditionalAttributes: true, CreatedAt: true,
}

func TestGetAuthorizedEntries(t *testing.T) {
	r := newEntryRig(t)
	agent, ids := r.agentEntries(3)
	r.create(plainEntry("/of-another-agent"))
	resp, err := agent.GetAuthorizedEntries(t.Context(), &entryv1.GetAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}})
	must(t, err)
	if got := idsOf(resp.GetEntries()); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	if e := resp.GetEntries()[0]; e.GetSpiffeId().GetPath() != "/w000000" || e.GetParentId() != nil {
		t.Errorf("masked entry: %v", e)
	}
	// Only agents have authorized entries.
	_, err = r.GetAuthorizedEntries(t.Context(), &entryv1.GetAuthorizedEntriesRequest{})
	wantStatus(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.entry.v1.Entry/GetAuthorizedEntries")
}

func TestAuthorizedEntriesNeedACaller(t *testing.T) {
	_, err := NewEntryService(Deps{}).GetAuthorizedEntries(WithCaller(t.Context(), Caller{Local: true}), nil)
	wantStatus(t, err, codes.Internal, "caller ID missing from request context")
}

type syncStream = entryv1.Entry_SyncAuthorizedEntriesClient

func startSync(t *testing.T, c entryv1.EntryClient, first *entryv1.SyncAuthorizedEntriesRequest) syncStream {
	t.Helper()
	stream, err := c.SyncAuthorizedEntries(t.Context())
	must(t, err)
	must(t, stream.Send(first))
	return stream
}

func recvSync(t *testing.T, s syncStream) *entryv1.SyncAuthorizedEntriesResponse {
	t.Helper()
	resp, err := s.Recv()
	must(t, err)
	if size := proto.Size(resp); size >= maxMessage {
		t.Errorf("an answer of %d bytes", size)
	}
	return resp
}

func wantEnd(t *testing.T, s syncStream) {
	t.Helper()
	if resp, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v; want the end", resp, err)
	}
}

func TestSyncRefuses(t *testing.T) {
	r := newEntryRig(t)
	agent, _ := r.agentEntries(1)
	_, err := startSync(t, agent, &entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"x"}}).Recv()
	wantStatus(t, err, codes.InvalidArgument, "specifying IDs on initial request is not supported")
	_, err = startSync(t, agent, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true}}).Recv()
	wantStatus(t, err, codes.InvalidArgument, "revision number cannot be masked")
}

// Up to a page, 500 exactly included, the first answer is the whole list.
func TestSyncOfAFewIsOneAnswer(t *testing.T) {
	for _, n := range []int{0, 1, syncPage} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := newEntryRig(t)
			agent, ids := r.agentEntries(n)
			stream := startSync(t, agent, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: agentMask})
			resp := recvSync(t, stream)
			if got := idsOf(resp.GetEntries()); !slices.Equal(got, ids) || len(resp.GetEntryRevisions()) != 0 || resp.GetMore() {
				t.Errorf("%d entries, %d revisions, more: %v", len(got), len(resp.GetEntryRevisions()), resp.GetMore())
			}
			if n > 0 && (resp.GetEntries()[0].GetParentId() != nil || resp.GetEntries()[0].GetCreatedAt() == 0) {
				t.Errorf("the mask is not applied: %v", resp.GetEntries()[0])
			}
			wantEnd(t, stream)
		})
	}
}

func TestSyncOfManySendsRevisionsFirst(t *testing.T) {
	r := newEntryRig(t)
	const n = 2*syncPage + 1
	agent, ids := r.agentEntries(n)
	_, rev, err := r.deps.Store.UpdateEntry(t.Context(), ids[1], func(*registration.Entry) error { return nil })
	must(t, err)
	must(t, r.deps.Registry.Wait(t.Context(), rev))

	stream := startSync(t, agent, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: agentMask})
	var got []string
	for page, want := range []int{syncPage, syncPage, 1} {
		resp := recvSync(t, stream)
		if len(resp.GetEntryRevisions()) != want || len(resp.GetEntries()) != 0 || resp.GetMore() != (page < 2) {
			t.Errorf("page %d: %d revisions, %d entries, more: %v", page, len(resp.GetEntryRevisions()), len(resp.GetEntries()), resp.GetMore())
		}
		for i, rev := range resp.GetEntryRevisions() {
			got = append(got, rev.GetId())
			if rev.GetCreatedAt() == 0 || rev.GetRevisionNumber() != map[bool]int64{true: 1}[page == 0 && i == 1] {
				t.Errorf("revision of %s: %v", rev.GetId(), rev)
			}
		}
	}
	if !slices.Equal(got, ids) {
		t.Error("the revisions are not of the agent's entries")
	}

	// A few, unsorted, twice and unknown; the first mask goes on applying.
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{ids[7], "nowhere", ids[3], ids[7]}, OutputMask: &types.EntryMask{}}))
	resp := recvSync(t, stream)
	if got := idsOf(resp.GetEntries()); !slices.Equal(got, []string{ids[3], ids[7]}) || resp.GetMore() || resp.GetEntries()[0].GetSpiffeId() == nil {
		t.Errorf("asked for a few: %v", resp)
	}
	// None: an answer all the same.
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"nowhere"}}))
	if resp := recvSync(t, stream); len(resp.GetEntries()) != 0 || resp.GetMore() {
		t.Errorf("asked for none: %v", resp)
	}
	// All.
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: ids}))
	got = nil
	for page, want := range []int{syncPage, syncPage, 1} {
		resp := recvSync(t, stream)
		if len(resp.GetEntries()) != want || resp.GetMore() != (page < 2) {
			t.Errorf("page %d: %d entries, more: %v", page, len(resp.GetEntries()), resp.GetMore())
		}
		got = append(got, idsOf(resp.GetEntries())...)
	}
	if !slices.Equal(got, ids) {
		t.Error("not all entries came, in order")
	}
	must(t, stream.CloseSend())
	wantEnd(t, stream)
}

// Few entries can be too large for the short form.
func TestSyncOfLargeEntriesFitsItsAnswers(t *testing.T) {
	r := newEntryRig(t)
	var large []registration.Selector
	for i := range 300 {
		large = append(large, registration.Selector{Type: "t", Value: fmt.Sprintf("%d-%s", i, strings.Repeat("x", 1000))})
	}
	agent, ids := r.agentEntries(30, large...)
	_, err := agent.GetAuthorizedEntries(t.Context(), &entryv1.GetAuthorizedEntriesRequest{})
	wantStatus(t, err, codes.ResourceExhausted, "entries do not fit one answer; use SyncAuthorizedEntries")

	stream := startSync(t, agent, &entryv1.SyncAuthorizedEntriesRequest{})
	if resp := recvSync(t, stream); len(resp.GetEntryRevisions()) != len(ids) || resp.GetMore() {
		t.Fatalf("%d revisions, more: %v", len(resp.GetEntryRevisions()), resp.GetMore())
	}
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: ids}))
	var got []string
	for more := true; more; {
		resp := recvSync(t, stream)
		got = append(got, idsOf(resp.GetEntries())...)
		more = resp.GetMore()
	}
	if !slices.Equal(got, ids) {
		t.Errorf("got %v", got)
	}
}
