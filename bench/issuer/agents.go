package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// agent is a node that has joined, with its connection.
type agent struct {
	id   *types.SPIFFEID
	conn *grpc.ClientConn
}

// bundle asks for the issuer's authorities over the admin socket.
func (m *measurement) bundle(ctx context.Context) (*x509bundle.Bundle, error) {
	b, err := bundlev1.NewBundleClient(m.server.admin).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, err
	}
	bundle := x509bundle.New(spiffeid.RequireTrustDomainFromString(trustDomain))
	for _, a := range b.GetX509Authorities() {
		cert, err := x509.ParseCertificate(a.GetAsn1())
		if err != nil {
			return nil, err
		}
		bundle.AddX509Authority(cert)
	}
	return bundle, nil
}

func (m *measurement) token(ctx context.Context) (string, error) {
	t, err := agentv1.NewAgentClient(m.server.admin).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600})
	return t.GetValue(), err
}

// request is a key and its CSR, as an agent or a workload makes them.
type request struct {
	key *ecdsa.PrivateKey
	csr []byte
}

func newRequest() (request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return request{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return request{key, csr}, err
}

// join joins with a token over a connection of its own, and closes it.
func (m *measurement) join(ctx context.Context, bundle *x509bundle.Bundle, token string, req request) (*x509svid.SVID, error) {
	conn, err := m.dial(tlsconfig.TLSClientConfig(bundle, m.issuerOnly()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "join_token", Payload: []byte(token)},
		Params: &agentv1.AgentX509SVIDParams{Csr: req.csr},
	}}}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	svid := &x509svid.SVID{PrivateKey: req.key}
	for _, der := range resp.GetResult().GetSvid().GetCertChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		svid.Certificates = append(svid.Certificates, cert)
	}
	svid.ID, err = x509svid.IDFromCert(svid.Certificates[0])
	return svid, err
}

func (m *measurement) issuerOnly() tlsconfig.Authorizer {
	return tlsconfig.AuthorizeID(spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString(trustDomain), "/spire/server"))
}

// connect opens the connection of an agent that has joined.
func (m *measurement) connect(svid *x509svid.SVID, bundle *x509bundle.Bundle) (*agent, error) {
	conn, err := m.dial(tlsconfig.MTLSClientConfig(svid, bundle, m.issuerOnly()))
	return &agent{id: &types.SPIFFEID{TrustDomain: trustDomain, Path: svid.ID.Path()}, conn: conn}, err
}

// joined is an agent that has joined and is connected.
func (m *measurement) joined(ctx context.Context, bundle *x509bundle.Bundle) (*agent, error) {
	req, err := newRequest()
	if err != nil {
		return nil, err
	}
	token, err := m.token(ctx)
	if err != nil {
		return nil, err
	}
	svid, err := m.join(ctx, bundle, token, req)
	if err != nil {
		return nil, err
	}
	return m.connect(svid, bundle)
}

// poll does what spire-agent does every 5 s, until ctx ends: it asks for its entries and for the bundle.
func (a *agent) poll(ctx context.Context, first time.Duration) error {
	wait := first
	for {
		if err := pause(ctx, wait); err != nil {
			return nil
		}
		wait = 5 * time.Second
		if err := a.sync(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (a *agent) sync(ctx context.Context) error {
	stream, err := entryv1.NewEntryClient(a.conn).SyncAuthorizedEntries(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true, Selectors: true, RevisionNumber: true, CreatedAt: true}}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err == nil {
		return fmt.Errorf("sync: an answer that was not asked for")
	}
	_, err = bundlev1.NewBundleClient(a.conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	return err
}

// agents measures the issuer under agents that poll as SPIRE's do.
func (m *measurement) agents(ctx context.Context) error {
	bundle, err := m.bundle(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	failed := make(chan error, m.set.agents)
	for i := range m.set.agents {
		a, err := m.joined(ctx, bundle)
		if err != nil {
			return err
		}
		defer a.conn.Close()
		running.Go(func() {
			if err := a.poll(ctx, 5*time.Second*time.Duration(i)/time.Duration(m.set.agents)); err != nil {
				failed <- err
			}
		})
	}
	defer running.Wait()
	defer cancel()
	if err := pause(ctx, 10*time.Second); err != nil { // every handshake is over
		return err
	}
	if err := m.watch(ctx, fmt.Sprintf("%d agents that poll, %d entries", m.set.agents, m.set.entries)); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (m *measurement) dial(config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(m.server.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}
