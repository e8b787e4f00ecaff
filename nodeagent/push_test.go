package nodeagent_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

// updates hands on what a go-spiffe watcher sees.
type updates struct {
	svids chan *workloadapi.X509Context
	errs  chan error
}

func (u updates) OnX509ContextUpdate(c *workloadapi.X509Context) { u.svids <- c }

func (u updates) OnX509ContextWatchError(err error) {
	select {
	case u.errs <- err:
	default:
	}
}

// watch runs a go-spiffe watcher until the test's end.
func watch(t *testing.T, a *agent) updates {
	t.Helper()
	u := updates{svids: make(chan *workloadapi.X509Context, 100), errs: make(chan error, 100)}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { workloadapi.WatchX509Context(ctx, u, a.addr()) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return u
}

func (u updates) await(t *testing.T, what string, cond func(*workloadapi.X509Context) bool) {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case c := <-u.svids:
			if cond(c) {
				return
			}
		case <-timeout.C:
			t.Fatalf("waited a minute for: %s", what)
		}
	}
}

func TestPushesEveryChange(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "b"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	u := watch(t, a)
	u.await(t, "the first answer", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	s.Put(own(s, "tok", "a"))
	u.await(t, "a new entry", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 2 && c.SVIDs[0].ID.Path() == "/a" })
	s.Delete("b")
	u.await(t, "an entry less", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	changed := own(s, "tok", "a")
	changed.DNSNames, changed.Revision = []string{"a.test"}, 1
	s.Put(changed)
	u.await(t, "a new certificate", func(c *workloadapi.X509Context) bool { return len(c.SVIDs) == 1 })
	s.AddAuthority()
	u.await(t, "a new authority", func(c *workloadapi.X509Context) bool {
		b, _ := c.Bundles.Get(s.CA.TrustDomain)
		return len(b.X509Authorities()) == 2
	})
	s.Delete("a")
	for err := range u.errs {
		if status.Code(err) == codes.PermissionDenied {
			break
		}
	}
}

func TestRotatesShortSVIDs(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.SVIDTTL = 3 * time.Second })
	s.Put(own(s, "tok", "a"))
	a := start(t, config(t, s, s.Token("tok", time.Hour)))
	a.awaitHealthy(t)
	u := watch(t, a)
	serials := make(map[string]bool)
	u.await(t, "three rotations", func(c *workloadapi.X509Context) bool {
		cert := c.DefaultSVID().Certificates[0]
		if !time.Now().Before(cert.NotAfter) {
			t.Error("pushed an expired SVID")
		}
		serials[cert.SerialNumber.String()] = true
		return len(serials) == 4
	})
	if n := len(s.Batches()); n > 6 {
		t.Errorf("%d signing requests for 4 SVIDs", n)
	}
}

// A further service on the socket: it counts its caller's SVIDs.
func countService(reg grpc.ServiceRegistrar, src nodeagent.X509Source) {
	reg.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Count", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Count", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			return src.WatchX509Context(stream.Context(), func(c *workload.X509Context) error {
				return stream.SendMsg(wrapperspb.Int32(int32(len(c.SVIDs))))
			})
		}}},
	}, nil)
}

func TestFurtherServices(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Put(own(s, "tok", "a"))
	cfg := config(t, s, s.Token("tok", time.Hour))
	cfg.Services = []func(grpc.ServiceRegistrar, nodeagent.X509Source){countService}
	a := start(t, cfg)
	a.awaitHealthy(t)
	stream, err := a.dial(t, cfg.SocketPath).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/test.Count/Count")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	count := func() int32 {
		var n wrapperspb.Int32Value
		if err := stream.RecvMsg(&n); err != nil {
			t.Fatal(err)
		}
		return n.Value
	}
	if n := count(); n != 1 {
		t.Errorf("%d SVIDs", n)
	}
	s.Put(own(s, "tok", "b"))
	if n := count(); n != 2 {
		t.Errorf("%d SVIDs", n)
	}
	s.Delete("a")
	s.Delete("b")
	var err2 error
	for err2 == nil {
		err2 = stream.RecvMsg(new(wrapperspb.Int32Value))
	}
	if status.Code(err2) != codes.PermissionDenied {
		t.Errorf("ended with %v", err2)
	}
}
