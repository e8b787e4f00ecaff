package serverapi

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/mtls"
	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
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
	t      *testing.T
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

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store"), TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })

	r := &rig{t: t, socket: filepath.Join(dir, "api.sock")}
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
	r.deps.Enroll = enroll.New(enroll.Config{TrustDomain: td, Store: st, Registry: reg, CA: r.deps.CA, Now: r.now})
	r.serve()
	return r
}

func (r *rig) serve() {
	r.t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	local, err := unixsock.Listen(r.socket, 0o600)
	must(r.t, err)
	r.addr = tcp.Addr().String()
	r.server = New(r.deps)
	r.background(func(ctx context.Context) error { return r.server.Serve(ctx, tcp, local) })
}

// background runs a part until the test ends, and waits for it.
func (r *rig) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(func() {
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
	r.t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	must(r.t, err)
	r.t.Cleanup(func() { must(r.t, conn.Close()) })
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
	return (&source{deps: c.deps}).Bundle(td)
}

// sign has the issuer's CA sign an SVID, past all rules.
func (r *rig) sign(id spiffeid.ID) *x509svid.SVID {
	r.t.Helper()
	key := newKey(r.t)
	chain, err := r.deps.CA.SignX509SVID(r.t.Context(), ca.Params{ID: id, PublicKey: key.Public()})
	must(r.t, err)
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}

// join attests a new agent.
func (r *rig) join() *x509svid.SVID {
	r.t.Helper()
	svid, err := r.attest(r.token(), newKey(r.t))
	must(r.t, err)
	return svid
}

func (r *rig) token() string {
	r.t.Helper()
	token, err := agentv1.NewAgentClient(r.local()).CreateJoinToken(r.t.Context(), &agentv1.CreateJoinTokenRequest{Ttl: 600})
	must(r.t, err)
	return token.GetValue()
}

// attest joins with a token, over a connection of its own without a certificate.
func (r *rig) attest(token string, key crypto.Signer) (*x509svid.SVID, error) {
	return r.attestWith("join_token", token, newCSR(r.t, key), key)
}

func (r *rig) attestWith(method, payload string, csr []byte, key crypto.Signer) (*x509svid.SVID, error) {
	stream, err := agentv1.NewAgentClient(r.as(nil)).AttestAgent(r.t.Context())
	if err != nil {
		return nil, err
	}
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: method, Payload: []byte(payload)},
			Params: &agentv1.AgentX509SVIDParams{Csr: csr},
		},
	}})
	if err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	return svidOf(resp.GetResult().GetSvid(), key)
}

func svidOf(p *types.X509SVID, key crypto.Signer) (*x509svid.SVID, error) {
	var der []byte
	for _, cert := range p.GetCertChain() {
		der = append(der, cert...)
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil {
		return nil, err
	}
	id, err := registration.IDFromProto(p.GetId())
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, err
}

// entry stores an entry and returns its ID.
func (r *rig) entry(e registration.Entry) string {
	r.t.Helper()
	if e.Selectors == nil {
		e.Selectors = []registration.Selector{{Type: "unix", Value: "uid:0"}}
	}
	results, rev, err := r.deps.Store.CreateEntries(r.t.Context(), []registration.Entry{e})
	must(r.t, err)
	must(r.t, results[0].Err)
	must(r.t, r.deps.Registry.Wait(r.t.Context(), rev))
	return results[0].Entry.ID
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func newCSR(t testing.TB, key crypto.Signer) []byte {
	return csrOf(t, &x509.CertificateRequest{}, key)
}

func csrOf(t testing.TB, template *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return der
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantStatus checks a status's code and text.
func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || status.Convert(err).Message() != text {
		t.Errorf("err = %v, want %s %q", err, code, text)
	}
}

// reason returns the reason in a PermissionDenied, as agents look for it.
func reason(err error) types.PermissionDeniedDetails_Reason {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*types.PermissionDeniedDetails); ok {
			return d.GetReason()
		}
	}
	return types.PermissionDeniedDetails_UNKNOWN
}
