package adminapi_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/delegatedidentityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

func (w *world) delegated() delegatedidentityv1.DelegatedIdentityClient {
	return delegatedidentityv1.NewDelegatedIdentityClient(w.conn)
}

type svidStream = grpc.ServerStreamingClient[delegatedidentityv1.SubscribeToX509SVIDsResponse]

func (w *world) svids(pid int, selectors ...string) svidStream {
	w.t.Helper()
	stream, err := w.delegated().SubscribeToX509SVIDs(w.t.Context(), &delegatedidentityv1.SubscribeToX509SVIDsRequest{
		Pid: int32(pid), Selectors: registration.SelectorsProto(result(selectors...).Selectors),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return stream
}

// got are the paths of the next message's SVIDs.
func got(t *testing.T, stream svidStream) []string {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{}
	for _, s := range resp.X509Svids {
		paths = append(paths, s.X509Svid.Id.Path)
	}
	return paths
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestDelegateIsGivenWhatSPIREGives(t *testing.T) {
	w := newWorld(t)
	web := w.entry("/web", "unix:uid:7")
	web.Hint, web.FederatesWith = "internal", []spiffeid.TrustDomain{w.other.TrustDomain}
	admin, downstream := w.entry("/admin", "unix:uid:7"), w.entry("/downstream", "unix:uid:7")
	admin.Admin, downstream.Downstream = true, true
	w.apply(web, w.entry("/api", "unix:uid:7"), admin, downstream, w.entry("/else", "unix:uid:8"))
	stream := w.svids(0, "unix:uid:7", "unix:gid:7")
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.X509Svids) != 2 || !cmp.Equal(resp.FederatesWith, []string{"spiffe://other.org"}) {
		t.Fatalf("got %v", resp)
	}
	for i, path := range []string{"/api", "/web"} { // by entry ID
		svid := resp.X509Svids[i]
		parsed, err := x509svid.ParseRaw(bytes.Join(svid.X509Svid.CertChain, nil), svid.X509SvidKey)
		if err != nil {
			t.Fatal(err)
		}
		if parsed.ID != w.id(path) || svid.X509Svid.Id.Path != path || svid.X509Svid.Id.TrustDomain != "example.org" {
			t.Errorf("SVID %d is %s, %v", i, parsed.ID, svid.X509Svid.Id)
		}
		if svid.X509Svid.ExpiresAt != parsed.Certificates[0].NotAfter.Unix() {
			t.Errorf("%s ends at %d", path, svid.X509Svid.ExpiresAt)
		}
		if _, _, err := x509svid.Verify(parsed.Certificates, w.ca.Bundle()); err != nil {
			t.Error(err)
		}
	}
	if resp.X509Svids[0].X509Svid.Hint != "" || resp.X509Svids[1].X509Svid.Hint != "internal" {
		t.Errorf("hints %q, %q", resp.X509Svids[0].X509Svid.Hint, resp.X509Svids[1].X509Svid.Hint)
	}
	// One that becomes an administrator's is a delegate's no more.
	api := w.entry("/api", "unix:uid:7")
	api.Admin = true
	w.apply(web, api, w.entry("/else", "unix:uid:8"))
	want(t, "with another admin", got(t, stream), "/web")
}

// The delegate is there before the entry is: it waits, and is not refused.
func TestDelegateWaitsForAnIdentity(t *testing.T) {
	w := newWorld(t)
	w.apply()
	stream := w.svids(0, "unix:uid:7")
	want(t, "at first", got(t, stream))
	w.apply(w.entry("/web", "unix:uid:7"))
	want(t, "with an entry", got(t, stream), "/web")
	w.apply()
	want(t, "with none again", got(t, stream))
	w.apply(w.entry("/web", "unix:uid:7"))
	want(t, "with one again", got(t, stream), "/web")
}

func TestDelegateAsksForAProcess(t *testing.T) {
	w := newWorld(t)
	pid, end := process(t)
	w.people.set(pid, result("unix:uid:7"))
	w.apply(w.entry("/web", "unix:uid:7"), w.entry("/other", "unix:uid:8"))
	stream := w.svids(pid)
	want(t, "by pid", got(t, stream), "/web")
	// It is another by the next message.
	w.people.set(pid, result("unix:uid:8"))
	web := w.entry("/web", "unix:uid:7")
	web.Hint = "new"
	w.apply(web, w.entry("/other", "unix:uid:8"))
	want(t, "as another", got(t, stream), "/other")
	// Its number says nothing any more when it has ended, whoever has that by then.
	end()
	_, err := stream.Recv()
	wantStatus(t, "after its end", err, codes.NotFound, "the process has ended")
	_, err = w.svids(pid).Recv()
	wantStatus(t, "anew", err, codes.Unavailable, "workload attestation failed")
	resp, err := w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{Audience: []string{"a"}, Pid: int32(pid)})
	wantStatus(t, "tokens", err, codes.Unavailable, "workload attestation failed")
	if len(resp.GetSvids()) > 0 {
		t.Error("it has tokens")
	}
}

// An attestor that fails is no reason to say that a process has no identity.
func TestGuardDelegateIsNotDeniedForAnAttestorsFailure(t *testing.T) {
	w := newWorld(t)
	pid, _ := process(t)
	failing := result("unix:uid:7")
	failing.Reports = append(failing.Reports, workloadattest.Report{Plugin: "docker", Err: errors.New("daemon is away")})
	w.people.set(pid, failing)
	w.apply(w.entry("/web", "docker:label:app:web"))
	_, err := w.svids(pid).Recv()
	wantStatus(t, "SVIDs", err, codes.Unavailable, "workload attestation failed")
	_, err = w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{Audience: []string{"a"}, Pid: int32(pid)})
	wantStatus(t, "tokens", err, codes.Unavailable, "workload attestation failed")
	// Of the delegate itself, likewise.
	failing.Selectors = result("unix:uid:9").Selectors
	w.people.mu.Lock()
	w.people.caller = failing
	w.people.mu.Unlock()
	_, err = w.svids(0, "unix:uid:7").Recv()
	wantStatus(t, "the delegate", err, codes.Unavailable, "workload attestation failed")
}

func TestDelegatesAlone(t *testing.T) {
	w := newWorld(t)
	calls := map[string]func() error{
		"SVIDs": func() error { _, err := w.svids(0, "unix:uid:7").Recv(); return err },
		"tokens": func() error {
			_, err := w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{
				Audience: []string{"a"}, Selectors: []*types.Selector{{Type: "unix", Value: "uid:7"}},
			})
			return err
		},
		"bundles": func() error {
			stream, err := w.delegated().SubscribeToX509Bundles(t.Context(), &delegatedidentityv1.SubscribeToX509BundlesRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"keys": func() error {
			stream, err := w.delegated().SubscribeToJWTBundles(t.Context(), &delegatedidentityv1.SubscribeToJWTBundlesRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range calls {
		wantStatus(t, name+", not synced", call(), codes.Unavailable, "not synced")
	}
	w.apply(w.entry("/web", "unix:uid:7"))
	for name, call := range calls {
		w.people.become("unix:uid:0") // root, but no delegate
		wantStatus(t, name+", nobody", call(), codes.PermissionDenied, "no identity issued")
		w.people.become("unix:uid:7")
		wantStatus(t, name+", another", call(), codes.PermissionDenied, "caller not configured as an authorized delegate")
		w.people.become("unix:uid:1")
		if err := call(); err != nil {
			t.Errorf("%s, the delegate: %v", name, err)
		}
	}
	// Who is a delegate no more is told so with the next change.
	stream := w.svids(0, "unix:uid:7")
	want(t, "as a delegate", got(t, stream), "/web")
	w.people.become("unix:uid:7")
	w.apply()
	_, err := stream.Recv()
	wantStatus(t, "no delegate any more", err, codes.PermissionDenied, "no identity issued")
}

func TestDelegateAsksForOneOrTheOther(t *testing.T) {
	w := newWorld(t)
	w.apply()
	for name, stream := range map[string]svidStream{"neither": w.svids(0), "both": w.svids(1, "unix:uid:1")} {
		_, err := stream.Recv()
		wantStatus(t, name, err, codes.InvalidArgument, "must provide either selectors or non-zero PID, but not both")
	}
	for name, selectors := range map[string][]*types.Selector{
		"no type": {{Value: "x"}}, "no value": {{Type: "unix"}}, "a colon": {{Type: "a:b", Value: "c"}}, "empty": {{}},
	} {
		_, err := w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{Audience: []string{"a"}, Selectors: selectors})
		wantStatus(t, name, err, codes.InvalidArgument, "could not parse provided selectors")
	}
	_, err := w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{Selectors: []*types.Selector{{Type: "unix", Value: "uid:1"}}})
	wantStatus(t, "no audience", err, codes.InvalidArgument, "audience must be specified")
	_, err = w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{Audience: []string{"a"}, Selectors: make([]*types.Selector, 1001)})
	wantStatus(t, "a thousand selectors", err, codes.InvalidArgument, "at most 1000")
	_, err = w.svids(-1).Recv()
	wantStatus(t, "a pid below 0", err, codes.Unavailable, "workload attestation failed")
}

func TestDelegateFetchesTokens(t *testing.T) {
	w := newWorld(t)
	web, admin := w.entry("/web", "unix:uid:7"), w.entry("/admin", "unix:uid:7")
	web.Hint, admin.Admin = "internal", true
	w.apply(web, admin, w.entry("/api", "unix:uid:7"))
	ask := func(selectors ...string) (*delegatedidentityv1.FetchJWTSVIDsResponse, error) {
		return w.delegated().FetchJWTSVIDs(t.Context(), &delegatedidentityv1.FetchJWTSVIDsRequest{
			Audience: []string{"shop", "bank"}, Selectors: registration.SelectorsProto(result(selectors...).Selectors),
		})
	}
	resp, err := ask("unix:uid:7")
	if err != nil || len(resp.Svids) != 2 {
		t.Fatalf("got %v, %v", resp, err)
	}
	for i, want := range []*types.JWTSVID{{Id: registration.IDProto(w.id("/api"))}, {Id: registration.IDProto(w.id("/web")), Hint: "internal"}} {
		svid := resp.Svids[i]
		if svid.Id.Path != want.Id.Path || svid.Hint != want.Hint || svid.Token == "" || svid.ExpiresAt-svid.IssuedAt != 60 {
			t.Errorf("token %d: %v", i, svid)
		}
	}
	_, err = ask("unix:uid:9")
	wantStatus(t, "nobody", err, codes.PermissionDenied, "no identity issued")
	w.apply(admin)
	_, err = ask("unix:uid:7")
	wantStatus(t, "an admin alone", err, codes.PermissionDenied, "no identity issued")
}

func TestDelegateFollowsAllBundles(t *testing.T) {
	w := newWorld(t)
	w.apply()
	bundles, err := w.delegated().SubscribeToX509Bundles(t.Context(), &delegatedidentityv1.SubscribeToX509BundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.delegated().SubscribeToJWTBundles(t.Context(), &delegatedidentityv1.SubscribeToJWTBundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := bundles.Recv()
	if err != nil || len(resp.CaCertificates) != 2 {
		t.Fatalf("got %v, %v", resp, err)
	}
	if certs, err := x509.ParseCertificates(resp.CaCertificates["spiffe://other.org"]); err != nil || !certs[0].Equal(w.other.Bundle().X509Authorities()[0]) {
		t.Errorf("other.org: %v, %v", certs, err)
	}
	doc, err := keys.Recv()
	if err != nil || !bytes.Contains(doc.Bundles["spiffe://example.org"], []byte(`"kid":"k"`)) {
		t.Errorf("keys: %s, %v", doc, err)
	}
	before := resp.CaCertificates["spiffe://example.org"]
	w.bundle = testca.New(t, "example.org").Bundle()
	w.apply()
	if resp, err = bundles.Recv(); err != nil || bytes.Equal(resp.CaCertificates["spiffe://example.org"], before) {
		t.Errorf("after a change: %v", err)
	}
	w.stop()
	_, err = bundles.Recv()
	wantStatus(t, "when the agent stops", err, codes.Unavailable, "stopping")
}

func TestDelegateGivesUp(t *testing.T) {
	w := newWorld(t)
	w.apply()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := w.delegated().SubscribeToX509SVIDs(ctx, &delegatedidentityv1.SubscribeToX509SVIDsRequest{Selectors: []*types.Selector{{Type: "unix", Value: "uid:7"}}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "at first", got(t, stream))
	cancel()
	_, err = stream.Recv()
	wantStatus(t, "after that", err, codes.Canceled, "")
}
