package serverapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// entryRig is a served issuer and a client of its admin socket.
type entryRig struct {
	*rig
	entryv1.EntryClient
}

func newEntryRig(t *testing.T) entryRig {
	t.Helper()
	r := newRig(t)
	return entryRig{r, entryv1.NewEntryClient(r.local())}
}

// webEntry has every field that a client sets.
func webEntry() *types.Entry {
	return &types.Entry{
		SpiffeId:      &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/web"},
		ParentId:      &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/spire/agent/join_token/a"},
		Selectors:     []*types.Selector{{Type: "unix", Value: "gid:2"}, {Type: "unix", Value: "uid:1"}},
		X509SvidTtl:   60,
		JwtSvidTtl:    61,
		FederatesWith: []string{"unknown.test"},
		Admin:         true,
		Downstream:    true,
		ExpiresAt:     4_000_000_000,
		DnsNames:      []string{"web.test"},
		Hint:          "hint",
		AdditionalAttributes: &types.Entry_AdditionalAttributes{
			DisableX509SvidPrefetch: true, JwtSvidIncludeJti: true,
		},
	}
}

// plainEntry has what an entry must have.
func plainEntry(path string) *types.Entry {
	return &types.Entry{
		SpiffeId:  &types.SPIFFEID{TrustDomain: "lanyard.test", Path: path},
		ParentId:  &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/spire/agent/join_token/a"},
		Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}},
	}
}

func (r entryRig) create(entries ...*types.Entry) []*types.Entry {
	r.t.Helper()
	resp, err := r.BatchCreateEntry(r.t.Context(), &entryv1.BatchCreateEntryRequest{Entries: entries})
	must(r.t, err)
	var made []*types.Entry
	for _, result := range resp.GetResults() {
		wantItem(r.t, result.GetStatus(), codes.OK, "OK")
		made = append(made, result.GetEntry())
	}
	return made
}

func wantItem(t *testing.T, st *types.Status, code codes.Code, text string) {
	t.Helper()
	if st == nil || st.GetCode() != int32(code) || st.GetMessage() != text {
		t.Errorf("status is %v, want %s %q", st, code, text)
	}
}

func wantEntry(t *testing.T, got, want *types.Entry) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

func TestEntryIsKeptWhole(t *testing.T) {
	r := newEntryRig(t)
	before := time.Now().Unix()
	got := r.create(webEntry())[0]
	want := webEntry()
	want.Id, want.CreatedAt = got.GetId(), got.GetCreatedAt()
	wantEntry(t, got, want)
	if len(got.GetId()) != 36 || got.GetCreatedAt() < before {
		t.Errorf("ID %q, created at %d", got.GetId(), got.GetCreatedAt())
	}
	// Nothing is masked where nothing is asked, and it can be read at once.
	read, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: got.GetId()})
	must(t, err)
	wantEntry(t, read, want)
}

func TestGetEntryRefuses(t *testing.T) {
	r := newEntryRig(t)
	_, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{})
	wantStatus(t, err, codes.InvalidArgument, "missing ID")
	_, err = r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: "nowhere"})
	wantStatus(t, err, codes.NotFound, "entry not found")
}

func TestOutputMaskKeepsTheIDAndWhatItNames(t *testing.T) {
	r := newEntryRig(t)
	id := r.create(webEntry())[0].GetId()
	whole, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: id})
	must(t, err)
	maskFields := (&types.EntryMask{}).ProtoReflect().Descriptor().Fields()
	for i := range maskFields.Len() {
		field := maskFields.Get(i)
		mask := &types.EntryMask{}
		mask.ProtoReflect().Set(field, protoTrue)
		got, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: id, OutputMask: mask})
		must(t, err)
		want := &types.Entry{Id: id}
		of := want.ProtoReflect().Descriptor().Fields().ByName(field.Name())
		if whole.ProtoReflect().Has(of) {
			want.ProtoReflect().Set(of, whole.ProtoReflect().Get(of))
		}
		wantEntry(t, got, want)
	}
	if maskFields.Len() != len(entryFields) {
		t.Errorf("a mask has %d fields, %d are known", maskFields.Len(), len(entryFields))
	}
}

func TestBatchCreateAnswersEachEntry(t *testing.T) {
	r := newEntryRig(t)
	first := r.create(webEntry())[0]

	similar := plainEntry("/web")
	similar.Selectors = []*types.Selector{{Type: "unix", Value: "uid:1"}, {Type: "unix", Value: "gid:2"}, {Type: "unix", Value: "uid:1"}}
	sameID := plainEntry("/other")
	sameID.Id = first.GetId()
	reserved := plainEntry("/spire/web")
	foreign := plainEntry("/web")
	foreign.ParentId.TrustDomain = "other.test"
	bare := plainEntry("/bare")
	bare.Selectors = nil
	chosen := plainEntry("/chosen")
	chosen.Id, chosen.RevisionNumber, chosen.CreatedAt = "my.id-1_", 7, 5

	resp, err := r.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{
		Entries: []*types.Entry{similar, sameID, reserved, foreign, bare, nil, chosen, plainEntry("/twin"), plainEntry("/twin")},
	})
	must(t, err)
	got := resp.GetResults()
	wantItem(t, got[0].GetStatus(), codes.AlreadyExists, "similar entry already exists")
	wantEntry(t, got[0].GetEntry(), first)
	wantItem(t, got[1].GetStatus(), codes.AlreadyExists, fmt.Sprintf("failed to create entry: entry ID %q: already exists", first.GetId()))
	for i, text := range map[int]string{
		2: "invalid spiffe ID", 3: "invalid parent ID", 4: "selector list is empty", 5: "",
	} {
		st := got[i].GetStatus()
		if st.GetCode() != int32(codes.InvalidArgument) || !strings.HasPrefix(st.GetMessage(), "failed to convert entry: "+text) {
			t.Errorf("result %d: %v, want %q", i, st, text)
		}
	}
	for _, i := range []int{1, 2, 3, 4, 5} {
		if got[i].GetEntry() != nil {
			t.Errorf("result %d has an entry", i)
		}
	}
	wantItem(t, got[6].GetStatus(), codes.OK, "OK")
	if e := got[6].GetEntry(); e.GetId() != "my.id-1_" || e.GetRevisionNumber() != 0 || e.GetCreatedAt() == 5 {
		t.Errorf("chosen: %v", e)
	}
	wantItem(t, got[7].GetStatus(), codes.OK, "OK")
	wantItem(t, got[8].GetStatus(), codes.AlreadyExists, "similar entry already exists")
	if got[8].GetEntry().GetId() != got[7].GetEntry().GetId() {
		t.Error("the twin is told another entry")
	}
}

func (r entryRig) update(in *types.Entry, mask *types.EntryMask) *entryv1.BatchUpdateEntryResponse_Result {
	r.t.Helper()
	resp, err := r.BatchUpdateEntry(r.t.Context(), &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{in}, InputMask: mask})
	must(r.t, err)
	return resp.GetResults()[0]
}

func TestUpdateChangesWhatTheMaskNames(t *testing.T) {
	r := newEntryRig(t)
	web := webEntry()
	web.AdditionalAttributes.DisableX509SvidPrefetch = false // it excludes store_svid, which comes to be set
	made := r.create(web)[0]
	change := &types.Entry{
		Id:            made.GetId(),
		SpiffeId:      &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/new"},
		ParentId:      &types.SPIFFEID{TrustDomain: "lanyard.test", Path: "/new-parent"},
		Selectors:     []*types.Selector{{Type: "new", Value: "1"}},
		X509SvidTtl:   1,
		JwtSvidTtl:    2,
		FederatesWith: []string{"new.test"},
		ExpiresAt:     4_000_000_001,
		DnsNames:      []string{"new.test"},
		StoreSvid:     true,
		Hint:          "new",
	}
	fields := (&types.EntryMask{}).ProtoReflect().Descriptor().Fields()
	want := proto.CloneOf(made)
	for i := range fields.Len() {
		name := fields.Get(i).Name()
		mask := &types.EntryMask{}
		mask.ProtoReflect().Set(fields.Get(i), protoTrue)
		// What the mask does not name may be anything.
		in := &types.Entry{Id: made.GetId(), SpiffeId: &types.SPIFFEID{TrustDomain: "no domain"}, Selectors: []*types.Selector{{}}}
		of := in.ProtoReflect().Descriptor().Fields().ByName(name)
		in.ProtoReflect().Clear(of)
		if change.ProtoReflect().Has(of) {
			in.ProtoReflect().Set(of, change.ProtoReflect().Get(of))
		}
		if name != "revision_number" && name != "created_at" { // the server's own
			want.ProtoReflect().Clear(of)
			if change.ProtoReflect().Has(of) {
				want.ProtoReflect().Set(of, change.ProtoReflect().Get(of))
			}
		}
		want.RevisionNumber++ // even where nothing changes
		got := r.update(in, mask)
		wantItem(t, got.GetStatus(), codes.OK, "OK")
		wantEntry(t, got.GetEntry(), want)
	}
	// Without a mask all of it is replaced, and it can be read at once.
	whole := plainEntry("/whole")
	whole.Id = made.GetId()
	got := r.update(whole, nil)
	wantItem(t, got.GetStatus(), codes.OK, "OK")
	whole.CreatedAt, whole.RevisionNumber = want.CreatedAt, want.RevisionNumber+1
	wantEntry(t, got.GetEntry(), whole)
	read, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: made.GetId()})
	must(t, err)
	wantEntry(t, read, whole)
}

func TestUpdateRefuses(t *testing.T) {
	r := newEntryRig(t)
	made := r.create(plainEntry("/web"), plainEntry("/db"))

	wantItem(t, r.update(&types.Entry{Id: "nowhere"}, &types.EntryMask{Hint: true}).GetStatus(), codes.NotFound, "failed to update entry")
	wantItem(t, r.update(&types.Entry{}, &types.EntryMask{Hint: true}).GetStatus(), codes.NotFound, "failed to update entry")

	like := plainEntry("/db")
	like.Id = made[0].GetId()
	got := r.update(like, nil).GetStatus()
	if got.GetCode() != int32(codes.AlreadyExists) || !strings.Contains(got.GetMessage(), made[1].GetId()) {
		t.Errorf("update to be like another: %v", got)
	}
	bad := plainEntry("/spire/x")
	bad.Id = made[0].GetId()
	for name, mask := range map[string]*types.EntryMask{"all": nil, "its ID": {SpiffeId: true}} {
		got := r.update(bad, mask).GetStatus()
		if got.GetCode() != int32(codes.InvalidArgument) || !strings.HasPrefix(got.GetMessage(), "failed to convert entry: invalid spiffe ID: ") {
			t.Errorf("bad update of %s: %v", name, got)
		}
	}
	wantItem(t, r.update(&types.Entry{Id: made[0].GetId()}, &types.EntryMask{Selectors: true}).GetStatus(),
		codes.InvalidArgument, "failed to convert entry: selector list is empty")
	// The whole entry is checked, not only what changes.
	mixed := plainEntry("/mixed")
	mixed.Selectors = append(mixed.Selectors, &types.Selector{Type: "other", Value: "x"})
	mixed = r.create(mixed)[0]
	got = r.update(&types.Entry{Id: mixed.GetId(), StoreSvid: true}, &types.EntryMask{StoreSvid: true}).GetStatus()
	if got.GetCode() != int32(codes.InvalidArgument) {
		t.Errorf("store_svid with selectors of two types: %v", got)
	}
	for _, want := range []*types.Entry{made[0], mixed} {
		read, err := r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: want.GetId()})
		must(t, err)
		wantEntry(t, read, want)
	}
}

func TestBatchDeleteAnswersEachID(t *testing.T) {
	r := newEntryRig(t)
	id := r.create(plainEntry("/web"))[0].GetId()
	resp, err := r.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{"", "nowhere", id, id}})
	must(t, err)
	got := resp.GetResults()
	wantItem(t, got[0].GetStatus(), codes.InvalidArgument, "missing entry ID")
	wantItem(t, got[1].GetStatus(), codes.NotFound, "entry not found")
	wantItem(t, got[2].GetStatus(), codes.OK, "OK")
	wantItem(t, got[3].GetStatus(), codes.NotFound, "entry not found")
	for i, id := range []string{"", "nowhere", id, id} {
		if got[i].GetId() != id {
			t.Errorf("result %d is of %q", i, got[i].GetId())
		}
	}
	_, err = r.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: id})
	wantStatus(t, err, codes.NotFound, "entry not found")
}

func TestEmptyBatches(t *testing.T) {
	r := newEntryRig(t)
	created, err := r.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{})
	must(t, err)
	updated, err := r.BatchUpdateEntry(t.Context(), &entryv1.BatchUpdateEntryRequest{})
	must(t, err)
	deleted, err := r.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{})
	must(t, err)
	if n := len(created.GetResults()) + len(updated.GetResults()) + len(deleted.GetResults()); n != 0 {
		t.Errorf("%d results", n)
	}
}

// A batch that was done is answered, even where the entries do not fit.
func TestAnswerToALargeBatchFits(t *testing.T) {
	r := newEntryRig(t)
	const n = 70
	var batch []*types.Entry
	for i := range n {
		e := plainEntry(fmt.Sprintf("/w%d", i))
		// 55 KiB each: in the request they have no ID yet.
		for j := range 55 {
			e.Selectors = append(e.Selectors, &types.Selector{Type: "t", Value: fmt.Sprintf("%d-%s", j, strings.Repeat("x", 1000))})
		}
		batch = append(batch, e)
	}
	made := r.create(batch...)
	if size := proto.Size(&entryv1.BatchCreateEntryRequest{Entries: made}); size >= maxMessage {
		t.Errorf("the answer has %d bytes", size)
	}
	var ids []string
	for _, e := range made {
		ids = append(ids, e.GetId())
	}
	if got := slices.Compact(slices.Sorted(slices.Values(ids))); len(got) != n || got[0] == "" {
		t.Errorf("%d entries have an ID in the answer, want %d", len(got), n)
	}
	if made[0].GetSpiffeId() == nil {
		t.Error("nothing but IDs in the answer")
	}
	// Too many to be told of at all: nothing is done.
	_, err := r.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: append(ids, make([]string, 50_000)...)})
	wantStatus(t, err, codes.ResourceExhausted, "the batch is too large: send it in parts")
	count, err := r.CountEntries(t.Context(), &entryv1.CountEntriesRequest{})
	must(t, err)
	if count.GetCount() != n {
		t.Errorf("%d entries are left, want %d", count.GetCount(), n)
	}
}

var protoTrue = protoreflect.ValueOfBool(true)
