package workloadapi

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/nodeagent/svidcache"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// onSocket calls f with the connection to a real service on a socket of the name, whose entries are: "node" for this user,
// "web" for this user over the socket web.
func onSocket(t *testing.T, name string, cfg Config, f func(t *testing.T, cc *grpc.ClientConn, s *svc)) {
	t.Helper()
	ca := testca.New(t, "example.org")
	cache := svidcache.New(svidcache.Config{TrustDomain: ca.TrustDomain, Signer: signer{t, ca}})
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Attestor, cfg.Cache, cfg.Stopping, cfg.TrustDomain = workloadattest.New(workloadattest.Options{}), cache, ctx, ca.TrustDomain
	s := New(cfg)
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.Creds(workloadattest.NewCredentials(workloadattest.CredentialsOptions{Socket: name})), grpc.ForceServerCodecV2(NewCodec()),
		grpc.UnaryInterceptor(s.UnaryInterceptor), grpc.StreamInterceptor(s.StreamInterceptor),
	)
	s.Register(server)
	RegisterEndpoint(server, s.NewHealth(workloadattest.New(workloadattest.Options{}).AttestPID, false))
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	running.Go(func() { cache.Run(ctx) })
	defer running.Wait()
	defer cancel()
	defer server.Stop()
	cc, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	service := &svc{Service: s, ca: ca}
	uid := registration.Selector{Type: "unix", Value: "uid:" + strconv.Itoa(os.Geteuid())}
	service.apply(t,
		registration.Entry{ID: "node", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/node"), Selectors: []registration.Selector{uid}},
		registration.Entry{ID: "web", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/web"), Selectors: []registration.Selector{{Type: "lanyard", Value: "socket:web"}, uid}},
	)
	f(t, cc, service)
}

func fetchIDs(t *testing.T, cc *grpc.ClientConn) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true"))
	defer cancel()
	stream, err := workloadpb.NewSpiffeWorkloadAPIClient(cc).FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
	if err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	var ids []string
	for _, s := range resp.GetSvids() {
		ids = append(ids, s.SpiffeId)
	}
	return ids, err
}

// A socket that was made for a container must not give it what its user has on the node.
func TestGuardSocketsGiveWhatTheyAreFor(t *testing.T) {
	const node, web = "spiffe://example.org/node", "spiffe://example.org/web"
	for name, test := range map[string]struct {
		socket string
		only   bool
		want   []string
	}{
		"shared":       {"", false, []string{node}},
		"web":          {"web", false, []string{node, web}},
		"web alone":    {"web", true, []string{web}},
		"api alone":    {"api", true, nil},
		"api, unnamed": {"api", false, []string{node}},
	} {
		t.Run(name, func(t *testing.T) {
			onSocket(t, test.socket, Config{Sockets: map[string]Socket{test.socket: {Only: test.only}}}, func(t *testing.T, cc *grpc.ClientConn, s *svc) {
				got, err := fetchIDs(t, cc)
				if test.want == nil {
					wantStatus(t, name, err, codes.PermissionDenied, "no identity issued")
					return
				}
				if err != nil || !slices.Equal(got, test.want) {
					t.Errorf("got %q, %v, want %q", got, err, test.want)
				}
			})
		})
	}
}

func TestWatchKeepsASocketsWordAfterAChange(t *testing.T) {
	onSocket(t, "web", Config{Sockets: map[string]Socket{"web": {Only: true}}}, func(t *testing.T, cc *grpc.ClientConn, s *svc) {
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true"))
		defer cancel()
		stream, err := workloadpb.NewSpiffeWorkloadAPIClient(cc).FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		first, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		uid := registration.Selector{Type: "unix", Value: "uid:" + strconv.Itoa(os.Geteuid())}
		s.apply(t,
			registration.Entry{ID: "node", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/node"), Selectors: []registration.Selector{uid}},
			registration.Entry{ID: "web2", SPIFFEID: spiffeid.RequireFromString("spiffe://example.org/web2"), Selectors: []registration.Selector{{Type: "lanyard", Value: "socket:web"}}},
		)
		second, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(second.Svids) != 1 || second.Svids[0].SpiffeId != "spiffe://example.org/web2" || bytes.Equal(first.Svids[0].X509Svid, second.Svids[0].X509Svid) {
			t.Errorf("then %v", second.Svids)
		}
	})
}
