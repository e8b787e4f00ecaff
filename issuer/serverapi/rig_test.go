package serverapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/unixsock"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/registry"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func spiffeID(path string) spiffeid.ID { return spiffeid.RequireFromPath(td, path) }

// rig is a whole issuer, served on a TCP port and an admin socket.
type rig struct {
	tb     testing.TB
	t      *testing.T // nil in a benchmark
	deps   Deps
	server *Server
	addr   string
	socket string
	// ahead is how far the issuer's clock is ahead of the machine's.
	ahead atomic.Int64
	log   lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

var adminID = spiffeID("/admin")

// published is the store as a ca.Journal.
type published struct{ *rig }

func (p published) UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error) {
	rev, err := p.deps.Store.UpdateCA(ctx, change)
	if err != nil {
		return rev, err
	}
	return rev, p.deps.Registry.Wait(ctx, rev)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigWith(t, func(*Deps) {})
}

// newRigWith is newRig of an issuer that is set up otherwise.
func newRigWith(t testing.TB, change func(*Deps)) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })

	r := &rig{tb: t, socket: filepath.Join(dir, "api.sock")}
	r.t, _ = t.(*testing.T)
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	reg := registry.New(st, log)
	r.background(reg.Run)
	<-reg.Ready()
	r.deps = Deps{
		TrustDomain: td, Store: st, Registry: reg, Now: r.now, Log: log,
		AdminIDs: []spiffeid.ID{adminID},
	}
	keys, err := ca.OpenKeys(filepath.Join(dir, "keys.json"))
	must(t, err)
	r.deps.CA = ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: published{r}, Now: r.now, Log: log})
	must(t, r.deps.CA.Load(t.Context()))
	r.deps.Enroll = enroll.New(enroll.Config{
		TrustDomain: td, Store: st, Registry: reg, CA: r.deps.CA, Now: r.now,
		Methods: map[string]enroll.Method{"test": testMethod{}},
	})
	change(&r.deps)
	r.serve()
	return r
}

func (r *rig) serve() {
	r.tb.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.tb, err)
	local, err := unixsock.Listen(r.socket, 0o600)
	must(r.tb, err)
	r.addr = tcp.Addr().String()
	r.server = New(r.deps)
	r.background(func(ctx context.Context) error { return r.server.Serve(ctx, tcp, local) })
}

// background runs a part until the test ends, and waits for it.
func (r *rig) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.tb.Context()))
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			r.tb.Error(err)
		}
	})
	r.tb.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// local connects to the admin socket.
func (r *rig) local() *grpc.ClientConn {
	return r.dial("unix:"+r.socket, insecure.NewCredentials())
}

// as connects over TCP with the SVID, or with none.
func (r *rig) as(svid *x509svid.SVID) *grpc.ClientConn {
	return r.dial(r.addr, credentials.NewTLS(r.clientTLS(svid)))
}

func (r *rig) clientTLS(svid *x509svid.SVID) *tls.Config {
	return mtls.Client(client{r, svid}, mtls.Exactly(spiffeID("/spire/server")), mtls.Options{
		NextProtos: []string{"h2"}, Now: r.now,
	})
}

func (r *rig) dial(target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	r.tb.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	must(r.tb, err)
	r.tb.Cleanup(func() { must(r.tb, conn.Close()) })
	return conn
}

// client is the mtls.Source of a caller.
type client struct {
	*rig
	svid *x509svid.SVID
}

func (c client) SVID() (*x509svid.SVID, error) {
	if c.svid == nil {
		return nil, mtls.ErrNoPeerCertificate
	}
	return c.svid, nil
}

func (c client) Bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return newSource(c.deps).Bundle(td)
}
