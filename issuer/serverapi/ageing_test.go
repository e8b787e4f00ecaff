package serverapi

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"google.golang.org/grpc"
)

// TestOldConnectionsEnd ages connections within a moment: clients go over to new
// ones, and a stream that is open goes on to its end.
func TestOldConnectionsEnd(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	for i := range syncPage + 1 {
		r.entry(registration.Entry{SPIFFEID: spiffeID("/w"), ParentID: svid.ID, Selectors: []registration.Selector{{Type: "n", Value: fmt.Sprint(i)}}})
	}
	guard := newGuard(r.deps)
	creds := serverCreds{credentials.NewTLS(tlsConfig(guard)), guard, r.deps.Log}
	young := newServer(guard, false, grpc.Creds(creds), ages(100*time.Millisecond))
	entryv1.RegisterEntryServer(young, NewEntryService(r.deps))
	bundlev1.RegisterBundleServer(young, NewBundleService(r.deps))
	agentv1.RegisterAgentServer(young, NewAgentService(r.deps))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.addr = l.Addr().String()
	r.background(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, young.Stop)()
		return young.Serve(l)
	})
	conn := r.as(svid)
	stream, err := entryv1.NewEntryClient(conn).SyncAuthorizedEntries(t.Context())
	must(t, err)
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{}))
	page, err := stream.Recv()
	must(t, err)
	first := page.EntryRevisions[0].Id

	// Until a call comes over another connection, the first one being too old.
	var addr string
	for deadline := time.Now().Add(10 * time.Second); ; {
		var p peer.Peer
		local := ""
		_, err := bundlev1.NewBundleClient(conn).GetBundle(t.Context(), &bundlev1.GetBundleRequest{}, grpc.Peer(&p))
		must(t, err)
		local = p.LocalAddr.String()
		if addr == "" {
			addr = local
		}
		if local != addr {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection is not ended")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for page.More {
		page, err = stream.Recv()
		must(t, err)
	}
	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{first}}))
	page, err = stream.Recv()
	if err != nil || len(page.Entries) != 1 {
		t.Errorf("on the old connection: %v, %v", page, err)
	}
	must(t, stream.CloseSend())
}
