package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// testService is gRPC's own test service, as far as it is called here.
type testService struct {
	testpb.UnimplementedTestServiceServer
}

func payload(n int32) *testpb.Payload { return &testpb.Payload{Body: random(int(n))} }

func (testService) UnaryCall(_ context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if code := req.GetResponseStatus().GetCode(); code != 0 {
		return nil, status.Error(codes.Code(code), req.GetResponseStatus().GetMessage())
	}
	return &testpb.SimpleResponse{Payload: payload(req.GetResponseSize())}, nil
}

func (testService) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	total := 0
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(total)})
		}
		if err != nil {
			return err
		}
		total += len(req.GetPayload().GetBody())
	}
}

func (testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, want := range req.GetResponseParameters() {
			if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: payload(want.GetSize())}); err != nil {
				return err
			}
		}
	}
}

// startGRPC serves the test service, in plaintext unless the options say otherwise, and returns its address.
func startGRPC(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(server, testService{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestSidecarGRPC runs a client that knows no TLS against a server that knows none.
func TestSidecarGRPC(t *testing.T) {
	t.Parallel()
	p := newPair(t, newDomain(t), startGRPC(t), rotatingLife)
	callGRPC(t, p.client.Listen, insecure.NewCredentials(), p.rotated)
	connections(t, p.client, 1, "closed", "reset")
}

// Gap 20: ghostunnel agrees on no protocol, and grpc-go refuses that. Here a stock client with an SVID dials the server
// sidecar, and a client that knows no TLS a stock server with an SVID.
func TestGap20ALPNCarriesStockGRPC(t *testing.T) {
	t.Parallel()
	s := newSVIDs(t)
	t.Run("client", func(t *testing.T) {
		server := s.sidecar("server", "server", startGRPC(t), "--allow-uri", s.id("client"), "--alpn", "h2")
		callGRPC(t, server.Listen, credentials.NewTLS(s.tls(t, "client")), func() {})
		record := connections(t, server, 1, "closed", "reset")[0]
		if record["alpn"] != "h2" || record["peer_spiffe_id"] != s.id("client") {
			t.Errorf("its record: %v", record)
		}
	})
	t.Run("server", func(t *testing.T) {
		config := s.serverTLS(t, "client")
		addr := startGRPC(t, grpc.Creds(credentials.NewTLS(config)))
		client := s.sidecar("client", "client", addr, "--verify-uri", s.id("server"), "--alpn", "h2")
		callGRPC(t, client.Listen, insecure.NewCredentials(), func() {})
	})
	t.Run("without it", func(t *testing.T) { // what the flag is for
		server := s.sidecar("server", "server", startGRPC(t), "--allow-uri", s.id("client"))
		conn, err := grpc.NewClient("passthrough:///"+server.Listen, grpc.WithTransportCredentials(credentials.NewTLS(s.tls(t, "client"))))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}

// callGRPC makes calls of each kind on one connection; during one stream it calls meanwhile.
func callGRPC(t *testing.T, addr string, creds credentials.TransportCredentials, meanwhile func()) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)
	for _, size := range []int32{0, 1, 1 << 20, 3 << 20} {
		resp, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: size, Payload: payload(size)})
		if err != nil || len(resp.GetPayload().GetBody()) != int(size) {
			t.Fatalf("unary call of %d bytes: %d bytes, %v", size, len(resp.GetPayload().GetBody()), err)
		}
	}
	refusal := &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: "as asked"}}
	if _, err := client.UnaryCall(t.Context(), refusal); status.Code(err) != codes.DataLoss {
		t.Errorf("a trailer with a status: %v", err)
	}
	streamIn(t, client)
	streamBoth(t, client, meanwhile)
}

func streamIn(t *testing.T, client testpb.TestServiceClient) {
	t.Helper()
	stream, err := client.StreamingInputCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(60_000)}); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil || resp.GetAggregatedPayloadSize() != 200*60_000 {
		t.Errorf("streamed %d bytes of %d, %v", resp.GetAggregatedPayloadSize(), 200*60_000, err)
	}
}

func streamBoth(t *testing.T, client testpb.TestServiceClient, meanwhile func()) {
	t.Helper()
	stream, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range int32(100) {
		size := n * 1000
		req := &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: size}}, Payload: payload(8)}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || len(resp.GetPayload().GetBody()) != int(size) {
			t.Fatalf("message %d: %d bytes, %v", n, len(resp.GetPayload().GetBody()), err)
		}
		if n == 50 {
			meanwhile()
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: %v", err)
	}
}
