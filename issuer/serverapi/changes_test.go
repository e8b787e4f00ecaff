package serverapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// holding is what an agent makes of a stream of changes.
type holding struct {
	t       *testing.T
	stream  grpc.ServerStreamingClient[changesv1.WatchResponse]
	cancel  context.CancelFunc
	entries map[string]*types.Entry
	bundles map[string]*types.Bundle
	resume  []byte
	resets  int
	pages   int // of the last change
}

// watch opens a stream for an agent, which goes on from what before held.
func (r *rig) watch(svid *x509svid.SVID, templates bool, before *holding) *holding {
	r.t.Helper()
	h := &holding{t: r.t, entries: map[string]*types.Entry{}, bundles: map[string]*types.Bundle{}}
	if before != nil {
		h.entries, h.bundles, h.resume = maps.Clone(before.entries), maps.Clone(before.bundles), before.resume
	}
	var ctx context.Context
	// A stream that does not end when it should fails its test, and soon.
	ctx, h.cancel = context.WithTimeout(r.t.Context(), time.Minute)
	r.t.Cleanup(h.cancel)
	var err error
	h.stream, err = changesv1.NewChangesClient(r.as(svid)).Watch(ctx, &changesv1.WatchRequest{Resume: h.resume, IdTemplates: templates})
	must(r.t, err)
	return h
}

// next takes one change.
func (h *holding) next() *holding {
	h.t.Helper()
	for h.pages = 1; ; h.pages++ {
		resp, err := h.stream.Recv()
		must(h.t, err)
		if size := proto.Size(resp); size > maxMessage {
			h.t.Errorf("a response has %d bytes", size)
		}
		if resp.GetReset_() {
			if h.pages > 1 {
				h.t.Error("a reset within a change")
			}
			h.entries, h.bundles = map[string]*types.Entry{}, map[string]*types.Bundle{}
			h.resets++
		}
		for _, e := range resp.GetEntries() {
			h.entries[e.GetId()] = e
		}
		for _, id := range resp.GetRemovedEntryIds() {
			delete(h.entries, id)
		}
		for _, b := range resp.GetBundles() {
			h.bundles[b.GetTrustDomain()] = b
		}
		for _, name := range resp.GetRemovedBundles() {
			delete(h.bundles, name)
		}
		if resp.GetComplete() {
			h.resume = resp.GetResume()
			if len(h.resume) == 0 || len(h.resume) > 256 {
				h.t.Errorf("a token of %d bytes", len(h.resume))
			}
			return h
		}
		if len(resp.GetResume()) > 0 {
			h.t.Error("a token before the end of a change")
		}
	}
}

// until takes changes until it holds the entries.
func (h *holding) until(ids ...string) {
	h.t.Helper()
	slices.Sort(ids)
	for !slices.Equal(slices.Sorted(maps.Keys(h.entries)), ids) {
		h.next()
	}
}

// ends takes changes until the stream ends.
func (h *holding) ends() error {
	for {
		if _, err := h.stream.Recv(); err != nil {
			return err
		}
	}
}

func plain(name string, parent spiffeid.ID) registration.Entry {
	return registration.Entry{ID: name, SPIFFEID: spiffeID("/w/" + name), ParentID: parent}
}

func TestWatchTellsOfChanges(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	federated := spiffeid.RequireTrustDomainFromString("other.test")
	first := plain("first", svid.ID)
	first.FederatesWith = []spiffeid.TrustDomain{federated}
	first.Hint, first.X509SVIDTTL = "hint", time.Minute
	r.entry(first)
	h := r.watch(svid, false, nil).next()
	own, err := bundlev1.NewBundleClient(r.local()).GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	if len(h.entries) != 1 || len(h.bundles) != 1 || h.resets != 1 || !proto.Equal(h.bundles[td.Name()], own) {
		t.Fatalf("first: %v %v", h.entries, h.bundles)
	}
	stored, _ := r.deps.Registry.Entry("first")
	if !proto.Equal(h.entries["first"], stored.Proto()) {
		t.Errorf("told %v, want every field of %v", h.entries["first"], stored.Proto())
	}

	r.entry(plain("second", svid.ID))
	h.next().until("first", "second")
	template := registration.Entry{ID: "template", ParentID: svid.ID}
	template.Template, err = registration.ParseTemplate(td, "/docker/{{docker:label:app}}")
	must(t, err)
	r.entry(template)
	r.entry(plain("of-another", spiffeID("/spire/agent/x/y")))
	bundle := &types.Bundle{TrustDomain: federated.Name(), X509Authorities: own.GetX509Authorities()}
	_, err = bundlev1.NewBundleClient(r.local()).BatchSetFederatedBundle(t.Context(), &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{bundle}})
	must(t, err)
	for h.bundles[federated.Name()] == nil {
		h.next()
	}
	got, err := bundlev1.NewBundleClient(r.local()).GetFederatedBundle(t.Context(), &bundlev1.GetFederatedBundleRequest{TrustDomain: federated.Name()})
	must(t, err)
	if !proto.Equal(h.bundles[federated.Name()], got) {
		t.Errorf("federated bundle: %v, want %v", h.bundles[federated.Name()], got)
	}

	resp, err := entryv1.NewEntryClient(r.local()).BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{"first"}})
	must(t, err)
	if resp.GetResults()[0].GetStatus().GetCode() != 0 {
		t.Fatal(resp)
	}
	h.until("second")
	if len(h.bundles) != 1 || h.resets != 1 {
		t.Errorf("%d bundles after the entry that federates has gone, %d resets", len(h.bundles), h.resets)
	}
	all := r.watch(svid, true, nil).next()
	all.until("second", "template")
}

func TestWatchResumes(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	r.entry(plain("a", svid.ID))
	h := r.watch(svid, false, nil).next()
	r.entry(plain("b", svid.ID))
	h.until("a", "b")
	h.cancel()

	same := r.watch(svid, false, h).next()
	if same.resets != 0 || same.pages != 1 || len(same.entries) != 2 {
		t.Errorf("the present: %d resets, %v", same.resets, same.entries)
	}
	same.cancel()
	_, rev, err := r.deps.Store.DeleteEntries(t.Context(), []string{"a"})
	must(t, err)
	must(t, r.deps.Registry.Wait(t.Context(), rev))
	r.entry(plain("c", svid.ID))
	later := r.watch(svid, false, h).next()
	if later.until("b", "c"); later.resets != 0 {
		t.Error("was told everything again")
	}
	later.cancel()

	other := r.join()
	for name, f := range map[string]func() *holding{
		"a token of another agent":          func() *holding { return r.watch(other, false, h) },
		"a token of who knows no templates": func() *holding { return r.watch(svid, true, h) },
		"a token of another store": func() *holding {
			stranger := *h
			stranger.resume = bytes.Clone(h.resume)
			stranger.resume[3]++
			return r.watch(svid, false, &stranger)
		},
		"no token at all": func() *holding {
			stranger := *h
			stranger.resume = []byte("resume")
			return r.watch(svid, false, &stranger)
		},
	} {
		if got := f().next(); got.resets != 1 {
			t.Errorf("%s was resumed", name)
		}
	}
}

func TestWatchEndsWithTheAgent(t *testing.T) {
	r := newRig(t)
	agents := agentv1.NewAgentClient(r.local())
	idOf := func(svid *x509svid.SVID) *types.SPIFFEID {
		return &types.SPIFFEID{TrustDomain: td.Name(), Path: svid.ID.Path()}
	}
	for name, want := range map[string]struct {
		reason types.PermissionDeniedDetails_Reason
		end    func(*x509svid.SVID)
	}{
		"banned": {types.PermissionDeniedDetails_AGENT_BANNED, func(svid *x509svid.SVID) {
			_, err := agents.BanAgent(t.Context(), &agentv1.BanAgentRequest{Id: idOf(svid)})
			must(t, err)
		}},
		"evicted": {types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, func(svid *x509svid.SVID) {
			_, err := agents.DeleteAgent(t.Context(), &agentv1.DeleteAgentRequest{Id: idOf(svid)})
			must(t, err)
		}},
		"renewed": {types.PermissionDeniedDetails_AGENT_NOT_ACTIVE, func(svid *x509svid.SVID) {
			key := newKey(t)
			resp, err := agentv1.NewAgentClient(r.as(svid)).RenewAgent(t.Context(), &agentv1.RenewAgentRequest{
				Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(t, key)},
			})
			must(t, err)
			renewed, err := svidOf(resp.GetSvid(), key)
			must(t, err)
			r.watch(renewed, false, nil).next()
		}},
	} {
		svid := r.join()
		h := r.watch(svid, false, nil).next()
		want.end(svid)
		err := h.ends()
		wantStatus(t, err, codes.PermissionDenied, "authorization denied for method /lanyard.changes.v1.Changes/Watch")
		if got := reason(err); got != want.reason {
			t.Errorf("%s: reason %s, want %s", name, got, want.reason)
		}
		// Renewals happen all day: nothing to look into.
		level := "level=WARN"
		if name == "renewed" {
			level = "level=DEBUG"
		}
		if len(r.lines(level, "Changes/Watch", want.reason.String())) != 1 {
			t.Errorf("%s: not one line of %s: %q", name, level, r.lines("Changes/Watch", want.reason.String()))
		}
	}
}

func TestWatchEndsWithTheSVID(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	h := r.watch(svid, false, nil).next()
	r.ahead.Store(int64(time.Until(svid.Certificates[0].NotAfter) + time.Second))
	r.entry(plain("wakes", svid.ID))
	if err := h.ends(); reason(err) != types.PermissionDeniedDetails_AGENT_EXPIRED {
		t.Errorf("got %v", err)
	}
}

// By itself too, in the moment in which it expires.
func TestWatchEndsWhenTheSVIDExpires(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	r.ahead.Store(int64(time.Until(svid.Certificates[0].NotAfter) - 1500*time.Millisecond))
	h := r.watch(svid, false, nil).next()
	if err := h.ends(); reason(err) != types.PermissionDeniedDetails_AGENT_EXPIRED {
		t.Errorf("got %v", err)
	}
}

func TestWatchEndsWithTheServer(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	var hs []*holding
	for range maxWatches {
		hs = append(hs, r.watch(svid, false, nil).next())
	}
	err := r.watch(svid, false, nil).ends()
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a fifth stream: %v", err)
	}
	begin := time.Now()
	r.server.stop()
	for _, h := range hs {
		wantStatus(t, h.ends(), codes.Unavailable, "the issuer is stopping: call again")
	}
	if took := time.Since(begin); took > drain/2 {
		t.Errorf("stopping took %v", took)
	}
	if n := len(r.server.changes.open); n != 0 {
		t.Errorf("%d streams are counted still", n)
	}
}

// A stream ends by itself, with Unavailable, while the connection still lives; and
// says something now and then until then.
func TestWatchEndsBeforeItsConnection(t *testing.T) {
	r := newRigWith(t, func(*Deps) {})
	r.server.changes.pace = pace{beat: 300 * time.Millisecond, age: time.Second, grace: time.Second}
	h := r.watch(r.join(), false, nil).next()
	beats := 0
	for {
		resp, err := h.stream.Recv()
		if err != nil {
			wantStatus(t, err, codes.Unavailable, "this connection has served its time: call again")
			break
		}
		if !resp.GetComplete() || len(resp.GetResume()) == 0 || resp.GetReset_() || len(resp.GetEntries()) > 0 {
			t.Errorf("a beat says %v", resp)
		}
		beats++
	}
	if beats < 2 || beats > 10 {
		t.Errorf("%d beats", beats)
	}
	for range 1000 {
		p := pace{age: maxConnectionAge, grace: maxConnectionGrace}
		if end := p.ends(0); end < p.age*11/10 || end > p.age*9/10+p.grace-2*time.Second {
			t.Fatalf("ends after %v", end)
		}
		if end := p.ends(time.Hour); end <= 0 || end > p.grace {
			t.Fatalf("a late one ends after %v", end)
		}
		if beat := (pace{beat: maxBeat}).nextBeat(); beat < 15*time.Second || beat > 26*time.Second {
			t.Fatalf("beats after %v", beat)
		}
	}
}

// Who does not read is told of all that happened meanwhile at once.
func TestWatchCoalesces(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	h := r.watch(svid, false, nil).next()
	const rounds = 60
	large := plain("large", svid.ID)
	for i := range 2000 {
		large.DNSNames = append(large.DNSNames, fmt.Sprintf("name-%06d.%s.example.org", i, strings.Repeat("x", 40)))
	}
	r.entry(large)
	for i := range rounds {
		_, rev, err := r.deps.Store.UpdateEntry(t.Context(), "large", func(e *registration.Entry) error {
			e.Hint = fmt.Sprint(i)
			return nil
		})
		must(t, err)
		must(t, r.deps.Registry.Wait(t.Context(), rev))
	}
	received := 0
	for h.entries["large"].GetHint() != fmt.Sprint(rounds-1) {
		h.next()
		received++
	}
	if received > rounds/2 {
		t.Errorf("%d changes came of %d: they were queued", received, rounds)
	}
}

// What does not fit a message comes in several, as one change.
func TestWatchSendsPages(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	ids := []string{}
	for i := range 30 {
		e := plain(fmt.Sprintf("%03d", i), svid.ID)
		for j := range 5000 {
			e.DNSNames = append(e.DNSNames, fmt.Sprintf("name-%06d.%s.example.org", j, strings.Repeat("x", 40)))
		}
		ids = append(ids, r.entry(e))
	}
	h := r.watch(svid, false, nil).next()
	if h.pages < 2 || h.resets != 1 || len(h.entries) != len(ids) {
		t.Errorf("%d entries in %d pages with %d resets", len(h.entries), h.pages, h.resets)
	}
	_, rev, err := r.deps.Store.DeleteEntries(t.Context(), ids)
	must(t, err)
	must(t, r.deps.Registry.Wait(t.Context(), rev))
	h.until()
}

func TestWatchIsForAgents(t *testing.T) {
	r := newRig(t)
	for name, svid := range map[string]*x509svid.SVID{
		"nobody": nil, "an administrator": r.sign(adminID), "a workload": r.sign(spiffeID("/w")), "an agent that is none": r.sign(spiffeID("/spire/agent/x/y")),
	} {
		stream, err := changesv1.NewChangesClient(r.as(svid)).Watch(t.Context(), &changesv1.WatchRequest{})
		must(t, err)
		if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	stream, err := changesv1.NewChangesClient(r.local()).Watch(t.Context(), &changesv1.WatchRequest{})
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented || errors.Is(err, io.EOF) {
		t.Errorf("on the admin socket: %v", err)
	}
}

func FuzzResumeToken(f *testing.F) {
	agent := spiffeID("/spire/agent/x/y")
	f.Add([]byte{})
	f.Add(resumeToken{holder: holderOf(agent, true)}.bytes())
	good := resumeToken{holder: holderOf(agent, false)}
	good.at.Revision, good.at.Second = 7, 1_800_000_000
	f.Add(good.bytes())
	f.Add(good.bytes()[:20])
	f.Add(append(good.bytes(), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		token, ok := parseResumeToken(b)
		if !ok {
			return
		}
		if token.at.Revision <= 0 || !bytes.Equal(token.bytes(), b) {
			t.Errorf("%x is read as %+v", b, token)
		}
	})
}
