package cli

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

// Dialer connects to a socket.
type Dialer func(ctx context.Context, path string) (net.Conn, error)

// DialAdmin connects to a role's admin socket for RPCs. A socket that isn't there, isn't answered, or is served by another
// ordinary user is an error now and not one of the first call. Failed calls give errors as RPCError has them.
func DialAdmin(ctx context.Context, path string) (*grpc.ClientConn, error) {
	return dial(ctx, path, unixsock.DialTrusted)
}

// DialWorkloadAPI is DialAdmin for the socket that is open to everyone: it takes any server.
func DialWorkloadAPI(ctx context.Context, path string) (*grpc.ClientConn, error) {
	return dial(ctx, path, func(ctx context.Context, path string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
}

func dial(ctx context.Context, path string, dialer Dialer) (*grpc.ClientConn, error) {
	first, err := dialer(ctx, path)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	cc, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if conn := first; conn != nil {
				first = nil
				return conn, nil
			}
			return dialer(ctx, path)
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return RPCError(invoke(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		first.Close()
		return nil, err
	}
	cc.Connect()
	return cc, nil
}

// maxAnswer bounds an answer, in bytes: a page of 500 entries may exceed gRPC's 4 MiB.
const maxAnswer = 64 << 20
