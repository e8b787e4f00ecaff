package serverapi

import (
	"context"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// early refuses callers without a certificate what they may not call before
// their message is read: the interceptors come after that, and a message may
// have 4 MiB. Everyone else passes, to be judged there. It must not block.
func (g *gate) early(ctx context.Context, info *tap.Info) (context.Context, error) {
	method := info.FullMethodName
	rule, ok := rules[method]
	if !ok || rule.allow&callerAny != 0 || rule.allow == callerLocal { // the last are not served here
		return ctx, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil
	}
	conn, ok := p.AuthInfo.(*connInfo)
	if !ok || len(conn.State.PeerCertificates) > 0 {
		return ctx, nil
	}
	c := g.begin(method)
	return ctx, c.end(ctx, denied(types.PermissionDeniedDetails_UNKNOWN, denial(method)))
}
