package serverapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// converse joins by a method with challenges.
func (r *rig) converse(conn grpc.ClientConnInterface, payload string, respond func([]byte) *agentv1.AttestAgentRequest) (*agentv1.AttestAgentResponse_Result, error) {
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(r.tb.Context())
	if err != nil {
		return nil, err
	}
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: "test", Payload: []byte(payload)},
			Params: &agentv1.AgentX509SVIDParams{Csr: newCSR(r.tb, newKey(r.tb))},
		},
	}})
	for err == nil {
		var resp *agentv1.AttestAgentResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		if result := resp.GetResult(); result != nil {
			return result, nil
		}
		err = stream.Send(respond(resp.GetChallenge()))
	}
	if err == io.EOF { // of Send: the status comes by Recv
		_, err = stream.Recv()
	}
	return nil, err
}

func echo(challenge []byte) *agentv1.AttestAgentRequest {
	return &agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{ChallengeResponse: challenge}}
}

func TestAttestWithChallenges(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		payload string
		respond func([]byte) *agentv1.AttestAgentRequest
		code    codes.Code
		text    string
	}{
		{"none 0", echo, codes.OK, ""},
		{"some 3", echo, codes.OK, ""},
		{"most 8", echo, codes.OK, ""},
		{"many 9", echo, codes.ResourceExhausted, "attestation takes more than 8 challenges"},
		{"wrong 1", func([]byte) *agentv1.AttestAgentRequest { return echo([]byte("no")) }, codes.PermissionDenied, "nodeattestor(test): attestation refused: wrong response"},
		{"empty 1", func([]byte) *agentv1.AttestAgentRequest { return &agentv1.AttestAgentRequest{} }, codes.InvalidArgument, "malformed param: missing challenge response"},
		{"large 1", func([]byte) *agentv1.AttestAgentRequest { return echo(make([]byte, attestBytes)) }, codes.InvalidArgument, "malformed param: attestation data is larger than 262144 bytes"},
		{"it malformed", echo, codes.InvalidArgument, "nodeattestor(test): malformed attestation: it is it"},
		{"it refused", echo, codes.PermissionDenied, "nodeattestor(test): attestation refused: it is it"},
		{"it broken", echo, codes.Internal, "failed to attest: nodeattestor(test): the cloud is away"},
	} {
		result, err := r.converse(r.as(nil), tt.payload, tt.respond)
		if status.Code(err) != tt.code || (err != nil && status.Convert(err).Message() != tt.text) {
			t.Errorf("%s: err = %v, want %s %q", tt.payload, err, tt.code, tt.text)
		}
		if err == nil && (!result.Reattestable || result.Svid.Id.Path != "/spire/agent/test/"+strings.Fields(tt.payload)[0]) {
			t.Errorf("%s: %v", tt.payload, result)
		}
	}
}

// What binds a proof to one connection must be that of the client's connection.
func TestAttestIsGivenTheConnection(t *testing.T) {
	r := newRig(t)
	var seen tls.ConnectionState
	conn := r.dial(r.addr, &watchedCreds{credentials.NewTLS(r.clientTLS(nil)), &seen})
	result, err := r.converse(conn, "node 0", echo)
	must(t, err)
	want, err := seen.ExportKeyingMaterial("EXPORTER-test", []byte("context"), 8)
	must(t, err)
	id, err := registration.IDFromProto(result.Svid.Id)
	must(t, err)
	agent, ok := r.deps.Registry.Agent(id)
	if !ok {
		t.Fatal("the agent is not there")
	}
	var got []string
	for _, s := range agent.Selectors {
		got = append(got, s.Type+":"+s.Value)
	}
	for _, s := range []string{"test:peer:127.0.0.1", fmt.Sprintf("test:exporter:%x", want)} {
		if !strings.Contains(strings.Join(got, " "), s) {
			t.Errorf("selectors %q lack %s", got, s)
		}
	}
	// Over the admin socket there is neither.
	_, err = r.converse(r.local(), "local 0", echo)
	must(t, err)
	agent, _ = r.deps.Registry.Agent(spiffeID("/spire/agent/test/local"))
	if !strings.Contains(fmt.Sprint(agent.Selectors), "exporter:none") {
		t.Errorf("selectors %v", agent.Selectors)
	}
}

// watchedCreds note the state of the connection.
type watchedCreds struct {
	credentials.TransportCredentials
	state *tls.ConnectionState
}

func (c *watchedCreds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err == nil {
		*c.state = info.(credentials.TLSInfo).State
	}
	return conn, info, err
}

func (c *watchedCreds) Clone() credentials.TransportCredentials { return c }

// silentStream is an agent that says nothing; nobody says anything to it either.
type silentStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *agentv1.AttestAgentResponse
}

func (s *silentStream) Context() context.Context { return s.ctx }
func (s *silentStream) Send(m *agentv1.AttestAgentResponse) error {
	s.sent <- m
	return nil
}
func (s *silentStream) SendHeader(metadata.MD) error { return nil }
func (s *silentStream) Recv() (*agentv1.AttestAgentRequest, error) {
	<-s.ctx.Done()
	return nil, status.FromContextError(s.ctx.Err()).Err()
}

func TestAttestEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream := &silentStream{ctx: ctx, sent: make(chan *agentv1.AttestAgentResponse, 1)}
		start := time.Now()
		err := (&AgentService{}).AttestAgent(stream)
		wantStatus(t, err, codes.DeadlineExceeded, "failed to receive request from stream: attestation takes longer than 30s")
		if d := time.Since(start); d != attestTime {
			t.Errorf("it took %s", d)
		}
		talk := &conversation{stream: stream}
		_, err = talk.challenge(ctx, []byte("?"))
		wantStatus(t, err, codes.DeadlineExceeded, "failed to receive challenge from agent: attestation takes longer than 30s")
		if talk.failed != err {
			t.Errorf("failed = %v", talk.failed)
		}
		cancel() // as the end of the method does
		synctest.Wait()
	})
}

// A thousand nodes behind one address join within seconds, limits and all.
func TestThousandNodesJoinAtOnce(t *testing.T) {
	r := newRigWith(t, func(d *Deps) { d.Limits = Limits{Attestation: true, Signing: true} })
	const nodes = 1000
	conn := r.as(nil)
	start := time.Now()
	var joining sync.WaitGroup
	for worker := range 10 {
		joining.Go(func() {
			for i := range nodes / 10 {
				if _, err := r.converse(conn, fmt.Sprintf("node-%d-%d 0", worker, i), echo); err != nil {
					t.Error(err)
				}
			}
		})
	}
	joining.Wait()
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("%d nodes took %s", nodes, d)
	}
	if n := r.deps.Registry.AgentCount(); n != nodes {
		t.Errorf("%d agents", n)
	}
}

func TestPeerAddr(t *testing.T) {
	for addr, want := range map[net.Addr]string{
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}: "192.0.2.1",
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1")}:      "2001:db8::1",
		&net.UnixAddr{Name: "/x"}:                         "invalid IP",
	} {
		if got := peerAddr(peer.NewContext(t.Context(), &peer.Peer{Addr: addr})).String(); got != want {
			t.Errorf("peerAddr(%v) = %s, want %s", addr, got, want)
		}
	}
}

func TestAttestErrors(t *testing.T) {
	for err, code := range map[error]codes.Code{
		enroll.ErrUnknownMethod: codes.FailedPrecondition, enroll.ErrTokenSpent: codes.InvalidArgument, enroll.ErrTokenExpired: codes.InvalidArgument,
		enroll.ErrMalformed: codes.InvalidArgument, enroll.ErrRefused: codes.PermissionDenied, enroll.ErrBanned: codes.PermissionDenied,
		enroll.ErrUsed: codes.PermissionDenied, enroll.ErrKeyUnknown: codes.PermissionDenied, enroll.ErrTokenPlace: codes.PermissionDenied,
		ca.ErrNotReady: codes.Unavailable, store.ErrConflict: codes.Internal, context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		got := attestError(fmt.Errorf("it: %w", err))
		if status.Code(got) != code || !strings.Contains(got.Error(), err.Error()) {
			t.Errorf("%v: %v, want %s", err, got, code)
		}
	}
}
